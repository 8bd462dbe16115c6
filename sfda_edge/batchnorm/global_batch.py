"""Normalising by the statistics of the global batch, with gradients, as training does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sfda_edge.batchnorm.layers import Layers, running_statistics
from sfda_edge.runs.distributed import num_processes, summed


def batch_moments(*features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel of (N, C, …) over the global batch, differentiable.

    Of several, such as the inputs of a layer that runs twice, over all of them.
    """
    values = torch.cat([part.float().transpose(0, 1).flatten(1) for part in features], 1)
    count = values.shape[1] * num_processes()
    mean = summed(values.sum(1)) / count
    # Around the mean, not E[x²] − E[x]²: single precision has too few digits for that.
    variance = summed((values - mean[:, None]).square().sum(1)) / count
    return mean, variance


class GlobalBatchNorm(nn.Module):
    """BatchNorm by the statistics of the global batch, on any device; keeps none.

    ``torch.nn.SyncBatchNorm`` keeps running ones, and refuses CPUs.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return _normalised(self, x, *batch_moments(x))


def _normalised(
    layer: GlobalBatchNorm | _BatchNorm, x: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    scale = (variance + layer.eps).rsqrt()
    scale = scale if layer.weight is None else layer.weight * scale
    offset = -mean * scale if layer.bias is None else layer.bias - mean * scale
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    return (x * scale.view(shape) + offset.view(shape)).to(x.dtype)


@contextlib.contextmanager
def batch_mode(layers: Layers, momentum: float) -> Iterator[None]:
    """Normalise by each global batch's own statistics, as ``model.train()`` does of one process.

    Args:
        layers: of a network; all else in it, such as dropout, stays as it is.
        momentum: share of a batch in the running statistics after it; 0 leaves them.
    """
    before = {name: (layer.momentum, layer.num_batches_tracked) for name, layer in layers.items()}
    for layer in layers.values():
        layer.train()
        layer.momentum, layer.num_batches_tracked = momentum, None
        layer.track_running_stats = momentum > 0  # 0 times an infinite value is not 0
        if num_processes() > 1:
            layer.forward = partial(_global_forward, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for name, layer in layers.items():
            layer.eval()
            layer.momentum, layer.num_batches_tracked = before[name]
            layer.track_running_stats = True
            layer.__dict__.pop("forward", None)


def _global_forward(layer: _BatchNorm, x: Tensor) -> Tensor:
    """What the layer does to the whole batch, of which ``x`` are this process's rows."""
    mean, variance = batch_moments(x)
    if layer.momentum:
        count = x.numel() // x.shape[1] * num_processes()
        _follow(layer, mean.detach(), variance.detach() * count / (count - 1))
    return _normalised(layer, x, mean, variance)


def _follow(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    for stored, value in zip(running_statistics(layer), (mean, variance), strict=True):
        stored.lerp_(value.to(stored), layer.momentum or 0.0)
