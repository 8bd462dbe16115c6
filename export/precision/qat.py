"""Quantisation-aware fine-tuning: train a network to predict the same with int8 inside."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from sfda_edge.runs.progress import Progress

_BATCH = 4
_LEARNING_RATE = 1e-4
_PERCENTILE = 0.9999
_SAMPLED = 100_000  # values of a frame that a percentile is taken of
_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)

Logits = Callable[[nn.Module, Tensor], Tensor]


def quantisation_aware_finetuning(
    model: nn.Module,
    frames: Sequence[np.ndarray],
    logits: Logits,
    *,
    steps: int,
    progress: Progress,
) -> nn.Module:
    """A copy that predicts with quantised weights and activations what the model does without.

    Rounding passes its gradient through (Jacob et al., CVPR 2018); the target is the float model's
    own prediction on target frames, no labels. BatchNorm statistics stay.

    Args:
        model: in evaluation mode.
        frames: target frames, (H, W, 3) uint8.
        logits: of a network for frames (N, H, W, 3) uint8.
        steps: of Adam, each on a batch of frames, every other time mirrored.
        progress: wraps the steps.
    """
    student = without_weight_norms(model).requires_grad_(True)  # whoever made it may have frozen it
    stacked = torch.from_numpy(np.stack(frames))
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(student.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with _quantised(student, _limits(student, stacked, logits)):
        for step in progress(range(steps)):
            batch = stacked[torch.randperm(len(stacked), generator=generator)[:_BATCH]]
            batch = batch.flip(2) if step % 2 else batch
            with torch.no_grad():
                wanted = logits(model, batch).log_softmax(1)
            optimizer.zero_grad(set_to_none=True)
            with torch.enable_grad():
                found = logits(student, batch).log_softmax(1)
                distance = functional.kl_div(found, wanted, reduction="none", log_target=True)
                distance.sum(1).mean().backward()
            optimizer.step()
            schedule.step()
    return student.requires_grad_(False)


@torch.no_grad()
def without_weight_norms(model: nn.Module) -> nn.Module:
    """A copy whose weight_norm and spectral_norm, old or new, are computed into plain weights.

    A rounded weight needs a parameter of its own to train.
    """
    for layer in model.modules():
        for name in _computed_weights(layer):  # what a pass has left may not be copied
            setattr(layer, name, getattr(layer, name).detach().clone())
    student = copy.deepcopy(model).eval()
    for layer in student.modules():
        for name in _computed_weights(layer):
            for hook_id, hook in list(layer._forward_pre_hooks.items()):
                if isinstance(hook, WeightNorm | SpectralNorm) and hook.name == name:
                    hook.remove(layer)
                    del layer._forward_pre_hooks[hook_id]
        if parametrize.is_parametrized(layer):
            _own_class(layer)
            for name in list(layer.parametrizations):  # type: ignore[union-attr,arg-type]
                parametrize.remove_parametrizations(layer, name, leave_parametrized=True)
    return student


def _own_class(layer: nn.Module) -> None:
    """Give a parametrized copy a class of its own: torch removes the weight from the class."""
    shared = type(layer)
    members = {k: v for k, v in vars(shared).items() if k not in ("__dict__", "__weakref__")}
    layer.__class__ = type(shared.__name__, shared.__bases__, members)


def _computed_weights(layer: nn.Module) -> list[str]:
    """Names of the weights that torch's former weight_norm and spectral_norm compute by hooks."""
    hooks = layer._forward_pre_hooks.values()
    names = [hook.name for hook in hooks if isinstance(hook, WeightNorm | SpectralNorm)]
    return [name for name in names if name in vars(layer)]


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    return (module for module in model.modules() if isinstance(module, _LAYERS))


@torch.no_grad()
def _limits(model: nn.Module, frames: Tensor, logits: Logits) -> dict[nn.Module, float]:
    """How far what goes into each layer reaches from 0, but for a share of 1 in 10,000."""
    limits: dict[nn.Module, float] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].abs().flatten()
        values = values[:: max(1, len(values) // _SAMPLED)]
        reached = float(torch.quantile(values, _PERCENTILE))
        limits[layer] = max(limits.get(layer, 1e-6), reached)

    hooks = [layer.register_forward_pre_hook(note) for layer in _layers(model)]
    try:
        for frame in frames[:: max(1, len(frames) // 8)]:
            logits(model, frame[None])
    finally:
        for hook in hooks:
            hook.remove()
    return limits


@contextlib.contextmanager
def _quantised(model: nn.Module, limits: dict[nn.Module, float]) -> Iterator[None]:
    """Round the weights of layers, channel by channel, and what goes into them."""

    def rounded(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        scale = limits[layer] / 127
        return torch.fake_quantize_per_tensor_affine(inputs[0], scale, 0, -128, 127), *inputs[1:]

    layers = [layer for layer in _layers(model) if layer in limits]
    for layer in layers:
        axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
        parametrize.register_parametrization(layer, "weight", _RoundedWeight(axis))
    hooks = [layer.register_forward_pre_hook(rounded) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer in layers:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)


class _RoundedWeight(nn.Module):
    """127 levels to either side of 0 for each output channel."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, weight: Tensor) -> Tensor:
        others = [axis for axis in range(weight.ndim) if axis != self.axis]
        scale = weight.detach().abs().amax(others).clamp_min(1e-12) / 127
        points = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, points, self.axis, -127, 127)
