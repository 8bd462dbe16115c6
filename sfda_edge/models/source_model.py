"""Find the model that a command is about: a run, a weights file, or the packaged one."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from runtime.bundle.manifest import file_sha256
from sfda_edge.errors import CheckpointError, RunError
from sfda_edge.labels.class_map import load_class_map
from sfda_edge.labels.label_spaces import label_space
from sfda_edge.models import Channels, ModelSpec, architecture, require_fits_frames
from sfda_edge.models.checkpoint import SPEC_FILE, load_model, read_spec
from sfda_edge.packaged import MODEL_DIR
from sfda_edge.runs.directory import ADAPTED_FILE, LATEST, read_run

logger = logging.getLogger(__name__)
WEIGHTS_NAMES = (ADAPTED_FILE, "model.safetensors")
NO_MAP = "none"


@dataclass(frozen=True)
class ModelFlags:
    """What the command line said of a model; None where it said nothing.

    Attributes:
        weights: a run directory or a weights file.
        model, label_space: needed for weights without a ``model.json``.
        size_hw: overrides the size that the model was made for.
        class_map: a name or file, or ``none`` to take a map off.
        mean, std: override the architecture's normalisation.
        feature_layer: overrides the layer whose features methods compare.
    """

    weights: Path | None
    model: str | None = None
    label_space: str | None = None
    size_hw: tuple[int, int] | None = None
    class_map: str | None = None
    mean: Channels | None = None
    std: Channels | None = None
    feature_layer: str | None = None


@dataclass(frozen=True, eq=False)
class SourceModel:
    """A loaded model.

    Attributes:
        model: on the CPU, in evaluation mode.
        spec: what it expects and answers.
        path: of its weights.
        sha256: of its weights.
    """

    model: nn.Module
    spec: ModelSpec
    path: Path
    sha256: str


def load_source(flags: ModelFlags, hint: str = "name another to change") -> SourceModel:
    """Load the model that the flags name; the packaged one when they name none.

    Args:
        flags: the model.
        hint: how the command at hand is told of another model.

    Raises:
        CheckpointError: the weights cannot be read, or too little is known of them.
        DataError: the label space or the class map is unknown or does not fit.
    """
    if flags.weights is None:
        logger.info("model: the packaged StreetSynth network (%s)", hint)
    path = _weights_file(flags.weights or MODEL_DIR)
    spec = _spec(path, flags)
    model = load_model(path, spec)
    if ":" in spec.architecture:  # of the user's making
        require_fits_frames(model, spec)
    return SourceModel(model, spec, path, file_sha256(path))


def describes_itself(weights: Path | None) -> bool:
    """Whether a model.json lies beside the weights, as beside the packaged ones."""
    if weights is None:
        return True
    return (weights if weights.is_dir() else weights.parent).joinpath(SPEC_FILE).is_file()


def default_weights(weights: Path | None, *, else_packaged: bool) -> Path | None:
    """What was asked for, else the latest run; says so.

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


def _weights_file(path: Path) -> Path:
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; name a run directory or a weights file")
    if not path.is_dir():
        return path
    found = next((path / name for name in WEIGHTS_NAMES if (path / name).is_file()), None)
    if found is None:
        advice = (
            "the run has not finished: --resume goes on with it"
            if read_run(path).get("state") == "running"
            else "name a run directory or a weights file"
        )
        raise CheckpointError(f"{path} holds no weights ({' or '.join(WEIGHTS_NAMES)}); {advice}")
    return found


def _spec(path: Path, flags: ModelFlags) -> ModelSpec:
    beside = path.with_name(SPEC_FILE)
    if flags.model is None and beside.is_file():
        spec = read_spec(beside)
        if flags.label_space is not None:
            raise CheckpointError(
                f"{beside} says what {path.name} answers; --label-space is for weights without one"
            )
    else:
        spec = _described(path, flags)
    if flags.size_hw is not None:
        spec = replace(spec, input_hw=flags.size_hw)
    if flags.mean is not None or flags.std is not None:
        spec = replace(spec, mean=flags.mean or spec.mean, std=flags.std or spec.std)
    if flags.feature_layer is not None:
        spec = replace(spec, feature_layer=flags.feature_layer)
    if flags.class_map == NO_MAP:
        return replace(spec, class_map=None)
    if flags.class_map is not None:
        return replace(spec, class_map=load_class_map(flags.class_map, spec.label_space))
    return spec


def _described(path: Path, flags: ModelFlags) -> ModelSpec:
    """A spec from flags alone, for weights that came without one."""
    missing = [
        flag
        for flag, value in (
            ("--model", flags.model),
            ("--label-space", flags.label_space),
            ("--size", flags.size_hw),
        )
        if value is None
    ]
    if missing:
        raise CheckpointError(
            f"{path} has no {SPEC_FILE} beside it, so say what it is: {', '.join(missing)}"
        )
    assert flags.model is not None
    assert flags.label_space is not None
    assert flags.size_hw is not None
    found = architecture(flags.model)
    space = label_space(flags.label_space)
    return ModelSpec(flags.model, space, flags.size_hw, found.mean, found.std, bgr=found.bgr)
