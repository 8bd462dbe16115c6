"""Read weights from the files in which people save them. No pickled code is run."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from runtime.files import require_regular
from sfda_edge.errors import CheckpointError

logger = logging.getLogger(__name__)
State = dict[str, Tensor]
_LISTED = 5
_DEEPEST = 4  # dictionaries within dictionaries, parts of a prefix
_COMPILED = "_orig_mod."  # what torch.compile puts into the names of a module's parameters
# Ends of names by torch's former weight_norm and spectral_norm, and by its parametrizations.
_RENAMED = {
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
    "weight_orig": "parametrizations.weight.original",
    "weight_u": "parametrizations.weight.0._u",
}
_SPECTRAL_V = "parametrizations.weight.0._v"  # of a weight_v without a weight_g


@dataclass(frozen=True)
class _Match:
    """A state dict of a file, and how its keys become those of a network.

    Attributes:
        place: of the state dict in the file, such as ``model_ema``; empty for the file itself.
        state: tensors by the file's keys.
        removed: prefix that is taken off the file's keys.
        added: prefix that is put before them.
        count: number of the network's keys that are found.
    """

    place: str
    state: State
    removed: str
    added: str
    count: int

    @property
    def name(self) -> str:
        """For people, and for ``--weights-key``."""
        return f"{self.place}.{self.removed}".strip(".")

    def source(self, key: str) -> str:
        """The file's key for a key of the network."""
        return self.removed + key[len(self.added) :] if key.startswith(self.added) else ""

    def names(self) -> State:
        """All tensors of the state dict, under what would be the network's keys."""
        return {
            self.added + name.removeprefix(self.removed): tensor
            for name, tensor in self.state.items()
            if name.startswith(self.removed)
        }


def read_weights(path: Path, expected: Collection[str] = (), key: str | None = None) -> State:
    """The tensors of a checkpoint under a network's own names.

    State dicts are found in nested dictionaries (``state_dict``, ``model_ema`` …). Prefixes such as
    ``module.``, ``student.`` or ``_orig_mod.`` are taken off, or a wrapper's is added, by what fits
    best. What the network has no use for is left out, and logged.

    Args:
        path: safetensors, or what ``torch.save`` wrote.
        expected: the network's keys; without them the largest state dict is returned as it is.
        key: which state dict to read where a file holds several, such as ``model_ema``.

    Raises:
        CheckpointError: the file is missing or damaged, or holds no usable tensors.
    """
    if not expected:
        return max(_states(path).values(), key=len)
    best = _best_match(path, expected, key, enough=len(expected))
    used = {name: source for name in expected if (source := best.source(name)) in best.state}
    if used:
        _log_left_out(path, [name for name in best.state if name not in set(used.values())])
    else:  # another network's: the caller says which keys differ
        used = {name: name for name in best.state}
    return {name: _dense(path, source, best.state[source]) for name, source in used.items()}


def read_part(path: Path, expected: Collection[str], key: str | None = None) -> State:
    """As ``read_weights``, with what the network has no use for, under names like its own.

    Raises:
        CheckpointError: as ``read_weights``.
    """
    found = _best_match(path, expected, key, enough=1).names()
    return {name: _dense(path, name, tensor) for name, tensor in found.items()}


def _states(path: Path) -> dict[str, State]:
    """The state dicts of a file by their places.

    Raises:
        CheckpointError: it cannot be read, or holds none.
    """
    states = dict(_state_dicts(_content(path)))
    if not states:
        raise CheckpointError(
            f"{path} holds no state dict: a dictionary of names and tensors is needed"
        )
    return states


def _best_match(path: Path, expected: Collection[str], key: str | None, *, enough: int) -> _Match:
    """The state dict, and the prefixes, under which most of the network's keys are found.

    Args:
        path: of the file.
        expected: the network's keys.
        key: the name of a state dict; None for the best.
        enough: keys of the network that others must have, too, to be worth a warning.

    Raises:
        CheckpointError: the file cannot be read, or none is called ``key``.
    """
    states = _states(path)
    matches = [match for place in states for match in _matches(place, states[place], expected)]
    found = [match for match in matches if key in (None, match.name, match.place)]
    if not found:
        names = ", ".join(dict.fromkeys(match.name for match in matches if match.name))
        raise CheckpointError(f"{path} holds no state dict '{key}'; it holds {names or 'one'}")
    best = max(found, key=lambda match: match.count)
    if key is None:
        _warn_of_others(path, best, found, enough)
    return best


def _content(path: Path) -> Any:
    """Whatever the file holds.

    Raises:
        CheckpointError: it is missing, damaged, or holds what may run code.
    """
    try:
        require_regular(path)
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (SafetensorError, OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise CheckpointError(f"{path} cannot be read as weights: {reason}") from None
    except Exception:  # torch.load passes on whatever the unpickler raises
        raise CheckpointError(
            f"{path} is no checkpoint, or holds more than weights, such as a whole model, which is "
            "not opened because it may run code; save model.state_dict(), best as safetensors"
        ) from None


def _harmless() -> list[Any]:
    """What checkpoints hold beside tensors and can do nothing but hold values."""
    scalar = np.float64(0).__reduce__()[0]  # its module's name differs between NumPy 1 and 2
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    dtypes = {type(np.dtype(code)) for code in "?bhilqBHILQefd"}
    return [argparse.Namespace, np.dtype, *dtypes, *((scalar, name) for name in names)]


def _state_dicts(content: Any, place: str = "", outer: tuple[int, ...] = ()) -> Iterator[Any]:
    """Every dictionary of named tensors in a file, after its place; the outermost first."""
    if not isinstance(content, Mapping) or id(content) in outer or len(outer) > _DEEPEST:
        return
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if tensors:
        yield place, tensors
    for key, value in content.items():
        yield from _state_dicts(value, f"{place}.{key}".lstrip("."), (*outer, id(content)))


def _matches(place: str, state: State, expected: Collection[str]) -> list[_Match]:
    """The prefixes to remove or add under which most keys of a state dict fit."""
    state, wanted = _renamed(state, expected), set(expected)

    def match(removed: str, added: str) -> _Match:
        fits = (k.startswith(added) and removed + k[len(added) :] in state for k in wanted)
        return _Match(place, state, removed=removed, added=added, count=sum(fits))

    found = [match(prefix, "") for prefix in _prefixes(state)]
    found += [match("", prefix) for prefix in _prefixes(wanted) if prefix]
    most = max(one.count for one in found)
    return [one for one in found if one.count == most][: None if most else 1]


def _prefixes(keys: Collection[str]) -> list[str]:
    """All beginnings of keys that end with a dot, and the empty one; the shortest first."""
    found = {""}
    for key in keys:
        parts = key.split(".")[:-1][:_DEEPEST]
        found.update(".".join(parts[: n + 1]) + "." for n in range(len(parts)))
    return sorted(found, key=lambda prefix: (len(prefix), prefix))


def _renamed(state: State, expected: Collection[str]) -> State:
    """The same tensors by the names of now: without torch.compile's, and as parametrizations."""
    compiled = any(_COMPILED in key for key in expected)
    ends = {key.rpartition(".parametrizations.")[2] for key in expected}
    renamed = {}
    for key, tensor in state.items():
        name = key if compiled else key.replace(_COMPILED, "")
        stem, dot, end = name.rpartition(".")
        new = _RENAMED.get(end)
        if end == "weight_v" and f"{key[: -len(end)]}weight_g" not in state:
            new = _SPECTRAL_V
        if new is not None and new.removeprefix("parametrizations.") in ends:
            name = f"{stem}{dot}{new}"
        renamed[name] = tensor
    return renamed


def _warn_of_others(path: Path, best: _Match, found: list[_Match], enough: int) -> None:
    most = max(best.count, enough)
    names = dict.fromkeys(match.name for match in found if match.count == most)
    if len(names) > 1:
        logger.warning(
            "%s holds %d sets of weights that fit (%s); '%s' is used, --weights-key NAME takes "
            "another",
            path,
            len(names),
            ", ".join(name or "the file itself" for name in names),
            best.name,
        )


def _log_left_out(path: Path, keys: list[str]) -> None:
    if keys:
        more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
        logger.info("left out of %s: %s%s", path, ", ".join(keys[:_LISTED]), more)


def _dense(path: Path, key: str, tensor: Tensor) -> Tensor:
    """A tensor that a parameter can take.

    Raises:
        CheckpointError: it is sparse, quantised, or holds no values.
    """
    kinds = {
        "sparse": tensor.layout != torch.strided,
        "quantised": tensor.is_quantized,
        "without values (on the device 'meta')": tensor.is_meta,
    }
    if problem := next((kind for kind, found in kinds.items() if found), None):
        raise CheckpointError(f"{path}: {key} is {problem}; save it as an ordinary dense tensor")
    return tensor
