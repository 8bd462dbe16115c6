"""A network without its last upsampling: most predict on a coarse grid and interpolate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from sfda_edge.models.inference import main_output


class Enlargement(NamedTuple):
    """A call of ``interpolate``.

    Attributes:
        number: its index among the network's calls; None for one of ours, after the network.
        output_hw: the size that it makes.
        arguments: how it was called, without the input.
    """

    number: int | None
    output_hw: tuple[int, int]
    arguments: dict[str, Any]


class SplitNetwork(nn.Module):
    """A network, split before the interpolation that its forward pass ends with.

    ``coarse`` gives the logits before it, ``enlarge`` does it. A network that predicts on a coarser
    grid than its input is upsampled bilinearly, as in evaluation. Of a network that ends with
    anything else, ``coarse`` gives its logits, and ``enlarge`` changes nothing.

    Args:
        network: in evaluation mode.
        example: an input of the size that it will see, with something on it: the halves have to
            give what the network gives, or it counts as one that ends with anything else.
    """

    @torch.no_grad()
    def __init__(self, network: nn.Module, example: Tensor) -> None:
        super().__init__()
        self.network = network
        self.last = _last_enlargement(network, example.clone())  # it may change its input in place
        logits = main_output(network(example.clone()))
        if self.last and not torch.equal(self.enlarge(self.coarse(example.clone())), logits):
            self.last = None
        height, width = example.shape[2:]
        if logits.shape[2:] != (height, width):
            arguments = {"size": (height, width), "mode": "bilinear", "align_corners": False}
            self.last = Enlargement(None, (height, width), arguments)

    @property
    def enlarges(self) -> bool:
        """Whether there is a coarser grid to take labels on."""
        return self.last is not None

    def coarse(self, x: Tensor) -> Tensor:
        """Input → logits on the network's own grid."""
        if self.last is None or self.last.number is None:
            return main_output(self.network(x))
        with _Skipping(self.last.number):
            return main_output(self.network(x))

    def enlarge(self, logits: Tensor) -> Tensor:
        """Logits on the network's own grid → at its output size."""
        if self.last is None:
            return logits
        return functional.interpolate(logits, **self.last.arguments)

    def enlarge_nearest(self, maps: Tensor) -> Tensor:
        """Maps (N, h, w) of labels on the network's own grid → at its output size."""
        assert self.last is not None
        aligned = bool(self.last.arguments.get("align_corners"))
        for axis, size in enumerate(self.last.output_hw, start=1):
            nearest = nearest_indices(maps.shape[axis], size, aligned)
            maps = maps.index_select(axis, nearest.to(maps.device))
        return maps


def nearest_indices(size: int, enlarged: int, align_corners: bool) -> Tensor:
    """For each of ``enlarged`` positions, which of ``size`` is nearest, as int64.

    Positions are where bilinear interpolation has them: pixels are areas, or, with
    ``align_corners``, points of which the first and last coincide.
    """
    position = torch.arange(enlarged, dtype=torch.float64)
    if align_corners:
        nearest = (position * ((size - 1) / max(1, enlarged - 1))).round()
    else:
        nearest = ((position + 0.5) * (size / enlarged)).floor()
    return nearest.long().clamp(0, size - 1)


def _last_enlargement(network: nn.Module, example: Tensor) -> Enlargement | None:
    with _Recording() as recording:
        logits = main_output(network(example))
    height, width = logits.shape[2:]
    for number, (arguments, made) in enumerate(recording.calls):
        if made is logits:
            return Enlargement(number, (height, width), arguments)
    return None


_NAMES = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")


class _Recording(TorchFunctionMode):
    """Records every call of ``interpolate``: its arguments and its result."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[dict[str, Any], Tensor]] = []

    def __torch_function__(
        self, function: Callable, types: Any, args: Sequence = (), kwargs: dict | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if function is functional.interpolate:
            named = dict(zip(("input", *_NAMES), args, strict=False)) | (kwargs or {})
            named.pop("input")
            self.calls.append((named, result))
        return result


class _Skipping(TorchFunctionMode):
    """Makes one call of ``interpolate`` return its input."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index, self.count = index, 0

    def __torch_function__(
        self, function: Callable, types: Any, args: Sequence = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is functional.interpolate:
            self.count += 1
            if self.count - 1 == self.index:
                return args[0] if args else kwargs["input"]
        return function(*args, **kwargs)
