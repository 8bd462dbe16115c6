"""Read and write weights together with their ModelSpec."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from runtime.files import read_bytes
from sfda_edge.errors import CheckpointError
from sfda_edge.models import ModelSpec, build_model
from sfda_edge.models.weights_file import read_weights
from sfda_edge.runs.files import write_atomically

SPEC_FILE = "model.json"
_LISTED = 5


def save_model(path: Path, model: nn.Module, spec: ModelSpec) -> None:
    """Write ``path`` (safetensors) and ``model.json`` beside it.

    Raises:
        RunError: the folder cannot be written, or the disk is full.
    """
    # Copies, because networks share weights between layers and a file of safetensors does not.
    tensors = {
        name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    write_atomically(path, lambda part: save_file(tensors, part))
    text = msgspec.json.format(msgspec.json.encode(spec), indent=1)
    write_atomically(path.with_name(SPEC_FILE), lambda part: part.write_bytes(text))


def read_spec(path: Path) -> ModelSpec:
    """Read a ``model.json``.

    Raises:
        CheckpointError: it is missing or does not describe a model.
    """
    try:
        return msgspec.json.decode(read_bytes(path), type=ModelSpec)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (msgspec.DecodeError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} does not describe a model: {error}") from None


def load_model(path: Path, spec: ModelSpec, *, key: str | None = None) -> nn.Module:
    """Build the network of ``spec``, in evaluation mode, with the weights in ``path``.

    Args:
        path: safetensors, or what ``torch.save`` wrote.
        spec: of the network.
        key: which state dict to read where the file holds several.

    Raises:
        CheckpointError: the file cannot be read, or its weights do not fit.
    """
    model = build_model(spec)
    load_weights(model, path, spec.architecture, key=key)
    return model.eval()


def load_weights(model: nn.Module, path: Path, what: str, *, key: str | None = None) -> None:
    """Load a file's weights into a network.

    Args:
        model: the network.
        path: safetensors, or what ``torch.save`` wrote.
        what: the network's name, for errors.
        key: which state dict to read where the file holds several.

    Raises:
        CheckpointError: the file cannot be read, or its weights do not fit.
    """
    expected = model.state_dict()
    state = read_weights(path, expected.keys(), key)
    # Checkpoints of PyTorch before 0.4.1 lack these counters, which inference does not need.
    counters = {k: v for k, v in expected.items() if k.endswith("num_batches_tracked")}
    state = {**counters, **_by_other_names(expected, state), **state}
    if problem := _misfit(expected, state):
        raise CheckpointError(f"{path} does not fit {what}:\n{problem}")
    require_floating_point(path, expected, state)
    model.load_state_dict(state)


def _by_other_names(expected: Mapping[str, Tensor], found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights that the network shares under several names; safetensors' own files hold one."""
    names = {
        (tensor.data_ptr(), tensor.shape): key
        for key, tensor in expected.items()
        if key in found and tensor.numel()
    }
    places = {key: (tensor.data_ptr(), tensor.shape) for key, tensor in expected.items()}
    return {key: found[names[place]] for key, place in places.items() if place in names}


def require_floating_point(
    path: Path, expected: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> None:
    """Reject numbers without their scale: torch would copy them as they are.

    Raises:
        CheckpointError: a floating-point weight of the network is of whole numbers in the file.
    """
    whole = [
        name
        for name, value in expected.items()
        if value.is_floating_point() and not state[name].is_floating_point()
    ]
    if whole:
        kind = str(state[whole[0]].dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{path}: {len(whole)} weights are {kind}, such as {whole[0]}, where the network has "
            "floating-point numbers. Give the weights from before the quantisation"
        )


def _misfit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """What does not fit, for people; empty when all does."""
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    reshaped = [
        f"{key} is {tuple(found[key].shape)}, the network's is {tuple(expected[key].shape)}"
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    ]
    lines = [
        f"  {what} ({len(keys)}): {'; '.join(keys[:_LISTED])}{' …' if len(keys) > _LISTED else ''}"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("shape", reshaped))
        if keys
    ]
    if lines:
        lines.append(f"  {_advice(len(expected), missing, reshaped)}")
    return "\n".join(lines)


def _advice(num_expected: int, missing: list[str], reshaped: list[str]) -> str:
    if len(missing) > num_expected / 2:
        return "Most keys differ: these weights are of another network; see --model"
    if reshaped and not missing:
        return (
            "Names agree but sizes do not: another number of classes (--label-space) "
            "or another width of the same network (--model)"
        )
    return "Part of the network agrees: another version of it, or a checkpoint of a part"
