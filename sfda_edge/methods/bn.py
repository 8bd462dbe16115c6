"""BatchNorm statistics, re-estimated on the target and mixed with the source's.

Replacing the statistics is AdaBN (Li et al., arXiv 1603.04779). On small or imbalanced target sets
that does harm, and a convex mix with the source's is better (Schneider et al., NeurIPS 2020, use
the source as a prior; UBNA, Klingner et al., 2021, decays the momentum to the same end).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sfda_edge.errors import RecipeError
from sfda_edge.methods.base import AdaptationMethod


@dataclass(frozen=True)
class BatchNormRecipe:
    """Settings of ``bn``.

    Attributes:
        target_share: of the target in mean and variance; 0 leaves the source, 1 replaces it.
        num_images: how many target images the statistics are estimated from.
        batch_size: images in one forward pass.
        seed: of the choice of images.
    """

    target_share: float = 0.3
    num_images: int = 48
    batch_size: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.target_share <= 1:
            raise ValueError(f"target_share must be in [0, 1], got {self.target_share}")
        if self.batch_size < 1 or self.num_images < 1 or self.num_images % self.batch_size:
            raise ValueError(
                f"num_images must be a multiple of batch_size, got {self.num_images} and "
                f"{self.batch_size}"
            )


class ChannelMoments:
    """Mean and variance of each channel over everything seen: sums in double precision."""

    def __init__(self, channels: int, device: torch.device) -> None:
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.total = torch.zeros(channels, dtype=torch.float64, device=device)
        self.squares = torch.zeros(channels, dtype=torch.float64, device=device)

    def update(self, features: Tensor) -> None:
        """Count features (N, C, …)."""
        values = features.detach().transpose(0, 1).flatten(1).double()
        self.count += values.shape[1]
        self.total += values.sum(1)
        self.squares += values.square().sum(1)

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        """Each (C,), the variance without Bessel's correction."""
        mean = self.total / self.count
        return mean, (self.squares / self.count - mean.square()).clamp_min(0)


def _statistics(layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    """A layer's running mean and variance, which ``BatchNormStatistics`` made sure are there."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return layer.running_mean, layer.running_var


@contextlib.contextmanager
def _batch_normalisation(model: nn.Module, layers: list[_BatchNorm]) -> Iterator[None]:
    """Normalise by each batch's own statistics, and remember nothing of it."""
    momenta = [layer.momentum for layer in layers]
    counters = [layer.num_batches_tracked for layer in layers]
    model.eval()
    for layer in layers:
        layer.train()
        layer.momentum, layer.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        model.eval()
        for layer, momentum, counter in zip(layers, momenta, counters, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, counter


class BatchNormStatistics(AdaptationMethod):
    """Estimate every layer's input statistics while each batch is normalised by its own."""

    def __init__(self, model: nn.Module, recipe: BatchNormRecipe) -> None:
        self.model, self.recipe = model, recipe
        self.batch_size = recipe.batch_size
        self.num_steps = recipe.num_images // recipe.batch_size
        self.layers = {
            name: layer
            for name, layer in model.named_modules()
            if isinstance(layer, _BatchNorm) and layer.running_mean is not None
        }
        if not self.layers:
            raise RecipeError(
                "method bn needs BatchNorm layers with running statistics; the network has none"
            )
        self.moments = {
            name: ChannelMoments(layer.num_features, _statistics(layer)[0].device)
            for name, layer in self.layers.items()
        }

    @torch.no_grad()
    def step(self, images: Tensor) -> dict[str, float]:
        """Forward one batch; the model's own statistics stay untouched until ``finish``."""
        hooks = [
            layer.register_forward_pre_hook(self._observe(name))
            for name, layer in self.layers.items()
        ]
        try:
            with _batch_normalisation(self.model, list(self.layers.values())):
                self.model(images)
        finally:
            for hook in hooks:
                hook.remove()
        return {"shift": self._shift()}

    def _observe(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        moments = self.moments[name]
        return lambda _layer, inputs: moments.update(inputs[0])

    def _shift(self) -> float:
        """How far the target's means are from the source's, in source standard deviations."""
        distances = []
        for name, layer in self.layers.items():
            mean, variance = _statistics(layer)
            distance = self.moments[name].mean_and_variance()[0] - mean
            distances.append(distance.abs() / (variance.double() + layer.eps).sqrt())
        return torch.cat(distances).mean().item()

    @torch.no_grad()
    def finish(self) -> None:
        """Mix the statistics into the model."""
        share = self.recipe.target_share
        for name, layer in self.layers.items():
            mean, variance = self.moments[name].mean_and_variance()
            source_mean, source_variance = _statistics(layer)
            source_mean.lerp_(mean.to(source_mean), share)
            source_variance.lerp_(variance.to(source_variance), share)

    def state(self) -> dict[str, Tensor]:
        """The sums of every layer."""
        return {
            f"{name}.{part}": getattr(moments, part)
            for name, moments in self.moments.items()
            for part in ("count", "total", "squares")
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over the sums of every layer."""
        for key, tensor in self.state().items():
            tensor.copy_(state[key])
