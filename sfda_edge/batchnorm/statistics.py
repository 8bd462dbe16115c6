"""TargetStatistics: mean and variance of every BatchNorm layer's input on the target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sfda_edge.batchnorm.layers import (
    Layers,
    batch_normalisation,
    batchnorm_layers,
    observing_inputs,
    running_statistics,
)
from sfda_edge.errors import RecipeError
from sfda_edge.runs.distributed import raise_together, reduced


class ChannelMoments:
    """Mean and variance of each channel over everything observed: sums in double precision."""

    def __init__(self, channels: int, device: torch.device) -> None:
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.total = torch.zeros(channels, dtype=torch.float64, device=device)
        self.squares = torch.zeros(channels, dtype=torch.float64, device=device)

    def update(self, count: int, mean: Tensor, variance: Tensor) -> None:
        """Add ``count`` values a channel of this mean and variance (Bessel-corrected), (C,)."""
        mean, variance = mean.double(), variance.double() * (count - 1) / count
        self.count += count
        self.total += count * mean
        self.squares += count * (variance + mean.square())

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        """Each (C,), the variance without Bessel's correction."""
        mean = self.total / self.count
        return mean, (self.squares / self.count - mean.square()).clamp_min(0)


class TargetStatistics:
    """The statistics of every layer's input on the target.

    Each batch is normalised by its own statistics while the moments are taken: with the source's,
    the layers behind a shifted one would be measured on inputs that the adapted network never gets.
    In a data-parallel run processes observe whole batches, each its share of them.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model, self.layers = model, batchnorm_layers(model)
        self.moments = {
            name: ChannelMoments(layer.num_features, running_statistics(layer)[0].device)
            for name, layer in self.layers.items()
        }

    @torch.no_grad()
    def observe(self, images: Tensor) -> Any:
        """Forward one normalised batch (N, 3, H, W); the model itself stays as it is.

        The layers compute the batch's moments in any case; with momentum 1 they show them.

        Returns:
            what the model returns, each layer's input normalised by the batch's own statistics.

        Raises:
            RecipeError: a single image, of which the network cannot take statistics.
        """

        def update(name: str, features: Tensor) -> None:
            count = features.numel() // features.shape[1]
            self.moments[name].update(count, *running_statistics(self.layers[name]))

        try:
            with (
                batch_normalisation(self.model, self.layers),
                observing_inputs(self.layers, update),
            ):
                return self.model(images)
        except ValueError as error:
            if len(images) > 1:
                raise
            raise RecipeError(
                f"the network cannot take the statistics of a single image ({error}); make "
                "batch_size at least 2"
            ) from None

    def reduce(self) -> None:
        """Add up what the processes have observed."""
        for moments in self.moments.values():
            found = reduced(moments.count, moments.total, moments.squares)
            moments.count, moments.total, moments.squares = found

    def _observed(self) -> Layers:
        """The layers that ran; an auxiliary head for training does not."""
        return {name: self.layers[name] for name in self.layers if self.moments[name].count > 0}

    def shift(self) -> float:
        """Mean distance of the target's means from the stored, in stored standard deviations."""
        distances = [
            (mean - stored_mean).abs() / stored_variance.sqrt()
            for mean, _, stored_mean, stored_variance in self._beside_stored()
        ]
        return torch.cat(distances).mean().item()

    def variance_factor(self) -> float:
        """By what factor the target's variances differ from the stored: geometric mean, >= 1."""
        logarithms = [
            (variance / stored_variance).log().abs()
            for _, variance, _, stored_variance in self._beside_stored()
        ]
        return torch.cat(logarithms).mean().exp().item()

    def _beside_stored(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Per layer, each (C,) float64: the target's mean and variance, then the stored."""
        for name, layer in self._observed().items():
            mean, variance = self.moments[name].mean_and_variance()
            stored_mean, stored_variance = (v.double() for v in running_statistics(layer))
            yield mean, variance + layer.eps, stored_mean, stored_variance + layer.eps

    @torch.no_grad()
    def mix_into(self, model: nn.Module, target_share: float) -> None:
        """Make ``target_share`` of the model's statistics the target's; 0 changes nothing.

        Args:
            model: with the same layers.
            target_share: in [0, 1].
        """
        layers = batchnorm_layers(model)
        for name in self._observed():
            mean, variance = self.moments[name].mean_and_variance()
            stored_mean, stored_variance = running_statistics(layers[name])
            for stored, target in ((stored_mean, mean), (stored_variance, variance)):
                if target_share == 1:  # also where the stored ones are NaN
                    stored.copy_(target)
                else:
                    stored.lerp_(target.to(stored), target_share)

    def state(self) -> dict[str, Tensor]:
        """The sums of every layer."""
        return {
            f"{name}.{part}": getattr(moments, part)
            for name, moments in self.moments.items()
            for part in ("count", "total", "squares")
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore the sums of every layer."""
        for key, tensor in self.state().items():
            tensor.copy_(state[key])


def target_statistics(model: nn.Module, batches: Iterable[Tensor]) -> TargetStatistics:
    """Observe normalised batches (N, 3, H, W): this process's share, for statistics of them all.

    Raises:
        Exception: the network's own, or of a full memory, in any process: all raise, so that none
            waits for another's sums.
    """
    statistics = TargetStatistics(model)
    failure: Exception | None = None
    try:
        for batch in batches:
            statistics.observe(batch)
    except Exception as error:  # of a user's network; they have no common base
        failure = error
    raise_together(failure)
    statistics.reduce()
    return statistics
