"""Read and write weights together with their ModelSpec. Nothing here runs pickled code."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sfda_edge.errors import CheckpointError
from sfda_edge.models import ModelSpec, architecture, build_model
from sfda_edge.runs.files import write_atomically

SPEC_FILE = "model.json"
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("module.", "_orig_mod.", "model.")
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


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write what a resumed run needs, for ``torch.load`` with ``weights_only``.

    Raises:
        RunError: the folder cannot be written, or the disk is full.
    """

    def write(part: Path) -> None:
        try:
            torch.save(state, part)
        except RuntimeError as error:  # torch's way of saying that a disk is full
            free_mb = shutil.disk_usage(part.parent).free / 1e6
            reason = str(error).partition("\n")[0]
            raise OSError(f"is the disk full? {free_mb:.1f} MB are left ({reason})") from None

    write_atomically(path, write)


def read_spec(path: Path) -> ModelSpec:
    """Read a ``model.json``.

    Raises:
        CheckpointError: it is missing or does not describe a model.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=ModelSpec)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise CheckpointError(f"{path} does not describe a model: {error}") from None


def load_model(path: Path, spec: ModelSpec) -> nn.Module:
    """Build the network of ``spec``, in evaluation mode, with the weights in ``path``.

    Raises:
        CheckpointError: the file cannot be read, or its weights do not fit.
    """
    model = build_model(spec)
    state = read_state_dict(path, model.state_dict().keys())
    skipped = architecture(spec.architecture).training_only
    state = {k: v for k, v in state.items() if not (skipped and k.startswith(skipped))}
    # Checkpoints of PyTorch before 0.4.1 lack these counters, which inference has no use for.
    counters = {k: v for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
    state = {**counters, **_by_other_names(model.state_dict(), state), **state}
    problem = _misfit(model.state_dict(), state)
    if problem:
        raise CheckpointError(f"{path} does not fit {spec.architecture}:\n{problem}")
    model.load_state_dict(state)
    return model.eval()


def read_state_dict(path: Path, expected: Any = ()) -> dict[str, Tensor]:
    """Read weights from a safetensors file or a ``weights_only`` checkpoint.

    The usual wrappers (``state_dict``, ``model``) and prefixes (``module.``) are taken off.

    Args:
        path: the file.
        expected: the network's own keys; a prefix that they share is left alone.

    Raises:
        CheckpointError: the file is missing, damaged, or holds anything but tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read as weights: {error}") from None
    except Exception:  # torch.load passes on whatever the unpickler raises
        raise CheckpointError(
            f"{path} is no checkpoint, or holds more than weights, such as a whole model, which is "
            "not opened because it may run code; save model.state_dict(), best as safetensors"
        ) from None
    return _without_prefixes(_unwrapped(path, content), set(expected))


def _by_other_names(expected: Mapping[str, Tensor], found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights that the network shares under several names; safetensors' own files hold one."""
    names = {
        (tensor.data_ptr(), tensor.shape): key
        for key, tensor in expected.items()
        if key in found and tensor.numel()
    }
    places = {key: (tensor.data_ptr(), tensor.shape) for key, tensor in expected.items()}
    return {key: found[names[place]] for key, place in places.items() if place in names}


def _unwrapped(path: Path, content: Any) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = next((content[w] for w in _WRAPPERS if isinstance(content.get(w), Mapping)), None)
        if inner is None:
            break
        content = inner
    tensors = content.values() if isinstance(content, Mapping) else ()
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise CheckpointError(f"{path} holds no state dict; found {type(content).__name__}")
    return dict(content)


def _without_prefixes(state: dict[str, Tensor], expected: set[str]) -> dict[str, Tensor]:
    while True:
        shared = (prefix for prefix in _PREFIXES if all(key.startswith(prefix) for key in state))
        foreign = (p for p in shared if not any(key.startswith(p) for key in expected))
        prefix = next(foreign, None)
        if prefix is None:
            return state
        state = {key[len(prefix) :]: tensor for key, tensor in state.items()}


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
