"""Find and load the model of a command or a call: a run, weights, a network in Python."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path

from torch import nn

from runtime.bundle.labels import LabelSpace
from runtime.bundle.manifest import file_sha256
from sfda_edge.batchnorm.layers import local_batchnorm
from sfda_edge.errors import CheckpointError, RunError, missing_weights
from sfda_edge.labels.class_map import load_class_map
from sfda_edge.labels.label_spaces import label_space
from sfda_edge.models import MODELS, Channels, ModelSpec, architecture, make_usable, own_copy
from sfda_edge.models.checkpoint import SPEC_FILE, load_model, load_weights, read_spec
from sfda_edge.models.loaded_model import LoadedModel, weights_sha256
from sfda_edge.models.spec import PYTHON
from sfda_edge.packaged import MODEL_DIR
from sfda_edge.runs.directory import ADAPTED_FILE, LATEST, read_run

logger = logging.getLogger(__name__)
WEIGHTS_NAMES = (ADAPTED_FILE, "model.safetensors")
NO_MAP = "none"


@dataclass(frozen=True)
class ModelRequest:
    """Which model is meant; None where nothing was said.

    Attributes:
        weights: a run directory or a weights file.
        network: a network that was given in Python, which is copied; ``weights`` are loaded into
            the copy.
        architecture: a name in ``MODELS`` or ``package.module:function``; for weights without a
            ``model.json``, or to confirm code that a ``model.json`` names.
        label_space: the network's outputs, by name, file or value; for weights without a
            ``model.json``.
        size_hw: input size; replaces that of ``model.json``.
        class_map: a name or file, or ``none`` to remove a map.
        mean, std: replace the architecture's normalisation.
        feature_layer: replaces the layer whose features methods compare.
        weights_key: which state dict to read of a file that holds several.
        trust_code: import code that a ``model.json`` names.
    """

    weights: Path | None = None
    _: KW_ONLY
    network: nn.Module | None = None
    architecture: str | None = None
    label_space: str | LabelSpace | None = None
    size_hw: tuple[int, int] | None = None
    class_map: str | None = None
    mean: Channels | None = None
    std: Channels | None = None
    feature_layer: str | None = None
    weights_key: str | None = None
    trust_code: bool = False


def load_source(request: ModelRequest, hint: str = "name another to change") -> LoadedModel:
    """Load the model of a request; the packaged one when it names none.

    Args:
        request: which model.
        hint: how to name another, for the log.

    Raises:
        CheckpointError: the weights cannot be read, too little is known of them, or ``model.json``
            names code that was not confirmed.
        DataError: the label space or the class map is unknown or does not fit.
    """
    if request.network is not None and request.weights is None:
        return _given(request, request.network)
    if request.weights is None:
        logger.info("model: the packaged StreetSynth network (%s)", hint)
    path = weights_file_of(request.weights or MODEL_DIR)
    spec = _spec(path, request)
    if request.network is not None:
        network = local_batchnorm(own_copy(request.network, spec))
        load_weights(network, path, spec.architecture, key=request.weights_key)
    else:
        network = load_model(path, spec, key=request.weights_key)
    if spec.architecture not in MODELS:
        make_usable(network, spec)
    return LoadedModel(
        network=network,
        spec=spec,
        path=path,
        sha256=file_sha256(path),
        weights_key=request.weights_key,
    )


def _given(request: ModelRequest, network: nn.Module) -> LoadedModel:
    """A network that was given in Python, with its weights."""
    spec = _changed(_described(request, "a network that is given in Python"), request)
    network = local_batchnorm(own_copy(network, spec))
    make_usable(network, spec)
    return LoadedModel(network=network, spec=spec, path=None, sha256=weights_sha256(network))


def describes_itself(weights: Path | None) -> bool:
    """Whether a model.json lies beside the weights, as beside the packaged ones."""
    if weights is None:
        return True
    return (weights if weights.is_dir() else weights.parent).joinpath(SPEC_FILE).is_file()


def default_weights(weights: Path | None, *, else_packaged: bool) -> Path | None:
    """What was asked for, else the latest run; logs which.

    Raises:
        RunError: there is no run yet and the packaged model will not do.
    """
    if weights is not None:
        return weights
    if LATEST.exists():
        logger.info(
            "model: %s, which is %s (name another to change)", LATEST, LATEST.resolve().name
        )
        return LATEST
    if else_packaged:
        return None
    raise RunError(
        f"there is no {LATEST} here; name a run or a weights file, or run sfda-edge adapt"
    )


def weights_file_of(path: Path) -> Path:
    """The weights that a file or run directory stands for.

    Raises:
        CheckpointError: it is missing, or holds none.
    """
    if not path.exists():
        raise missing_weights(path)
    if not path.is_dir():
        return path
    found = next((path / name for name in WEIGHTS_NAMES if (path / name).is_file()), None)
    if found is None:
        advice = (
            "the run has not finished: --resume continues it"
            if read_run(path).get("state") == "running"
            else "name a run directory or a weights file"
        )
        raise CheckpointError(f"{path} holds no weights ({' or '.join(WEIGHTS_NAMES)}); {advice}")
    return found


def _spec(path: Path, request: ModelRequest) -> ModelSpec:
    beside = path.with_name(SPEC_FILE)
    spec = read_spec(beside) if beside.is_file() else None
    if spec is not None and _is_about(spec, request):
        _require_confirmed(beside, spec, request)
        if request.label_space is not None:
            raise CheckpointError(
                f"{beside} describes the classes of {path.name}; --label-space and --binary are "
                "for weights without one"
            )
        return _changed(_confirmed(spec, request), request)
    lacking = f"{path} has no {SPEC_FILE} beside it"
    if spec is not None:
        if request.weights is None and request.architecture is not None:
            architecture(request.architecture)  # a name that is unknown comes first
            raise CheckpointError(f"--model {request.architecture} needs its --weights FILE")
        lacking = f"{beside} is of {spec.architecture}, not of {request.architecture}"
    return _changed(_described(request, lacking), request)


def _is_about(spec: ModelSpec, request: ModelRequest) -> bool:
    """Whether a ``model.json`` describes what was asked for: not where another network is named."""
    if request.network is not None or request.architecture is None:
        return True
    return request.architecture == spec.architecture or spec.architecture.startswith(PYTHON)


def _require_confirmed(beside: Path, spec: ModelSpec, request: ModelRequest) -> None:
    """Code that a file names is imported only when the user names it, too.

    Raises:
        CheckpointError: the file names code that was not confirmed.
    """
    name = spec.architecture
    if name in MODELS or name.startswith(PYTHON) or request.network is not None:
        return
    if not request.trust_code and request.architecture != name:
        raise CheckpointError(
            f"{beside} names Python code, '{name}', which would be imported and run. If you trust "
            f"it, name it on the command line, --model {name}, or add --trust-model-code"
        )


def _confirmed(spec: ModelSpec, request: ModelRequest) -> ModelSpec:
    """The spec with the network that was named or given, where the file only knows its class."""
    if request.network is not None:
        return replace(spec, architecture=python_name(request.network))
    return replace(spec, architecture=request.architecture or spec.architecture)


def python_name(network: nn.Module) -> str:
    """The ``architecture`` of a network that was given in Python."""
    return f"{PYTHON}{type(network).__name__}"


def _described(request: ModelRequest, what: str) -> ModelSpec:
    """A spec from a request alone.

    Raises:
        CheckpointError: the request lacks something.
    """
    name = request.architecture
    if request.network is not None:
        name = python_name(request.network)
    missing = [
        flag
        for flag, value in (
            ("--model", name),
            ("--label-space", request.label_space),
            ("--size", request.size_hw),
        )
        if value is None
    ]
    if missing or name is None or request.label_space is None or request.size_hw is None:
        raise CheckpointError(f"{what}, so it must be described: {_wanted(missing, request)}")
    found, space = architecture(name), request.label_space
    return ModelSpec(
        name,
        space if isinstance(space, LabelSpace) else label_space(space),
        request.size_hw,
        mean=found.mean,
        std=found.std,
        bgr=found.bgr,
    )


def _wanted(missing: Sequence[str], request: ModelRequest) -> str:
    """What a request lacks, in the words of the command line or of the Python API."""
    if request.network is None:
        return ", ".join(missing)
    words = {"--label-space": "class_names", "--size": "size_hw"}
    return ", ".join(words.get(flag, flag) for flag in missing)


def _changed(spec: ModelSpec, request: ModelRequest) -> ModelSpec:
    """The spec with what the request replaces."""
    if request.size_hw is not None:
        spec = replace(spec, input_hw=request.size_hw)
    if request.mean is not None or request.std is not None:
        spec = replace(spec, mean=request.mean or spec.mean, std=request.std or spec.std)
    if request.feature_layer is not None:
        spec = replace(spec, feature_layer=request.feature_layer)
    if request.class_map == NO_MAP:
        return replace(spec, class_map=None)
    if request.class_map is not None:
        return replace(spec, class_map=load_class_map(request.class_map, spec.label_space))
    return spec
