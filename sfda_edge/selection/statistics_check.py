"""Are a checkpoint's stored BatchNorm statistics usable on the target?

Few classes in the predictions alone say nothing: a target may show nothing but road, and what each
batch's own statistics make of that has five classes and is wrong. But while all layers before it
are normalised batch by batch, a layer's input hardly depends on what the images show. Road only,
sky only, night, dusk, another city: variances differ by a factor of 1.06 to 1.41, means by at most
0.08 deviations (two networks, 14 targets). Statistics that were never updated, or are of another
layer or scale: by 2.5 to 31 (9 cases; ``benchmarks/results/adaptation.md``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sfda_edge.batchnorm.statistics import TargetStatistics
from sfda_edge.selection.config import SelectionConfig
from sfda_edge.selection.diversity import diversity_left, effective_classes


@dataclass(frozen=True, kw_only=True)
class StatisticsCheck:
    """What was found.

    Attributes:
        usable: False when predictions lose their classes with the stored statistics and have them
            with each batch's own.
        classes_stored: effective number of classes in predictions with the stored statistics,
            exp(entropy of the class histogram): 1 for one class everywhere, 0 when not finite.
        classes_batch: the same with each batch's own statistics.
        shift: mean distance of the target's channel means, in stored standard deviations.
        variance_factor: by what factor the target's channel variances differ from the stored,
            geometric mean.
    """

    usable: bool
    classes_stored: float
    classes_batch: float
    shift: float
    variance_factor: float


@torch.no_grad()
def check_statistics(
    model: nn.Module,
    batches: list[Tensor],
    probabilities: Callable[[Any], Tensor],
    config: SelectionConfig,
) -> tuple[StatisticsCheck, TargetStatistics]:
    """Compare stored with batch statistics on a few normalised target batches.

    Args:
        model: with BatchNorm layers.
        batches: each (N, 3, H, W).
        probabilities: what the model returns → class probabilities (N, C, H, W).
        config: the thresholds.

    Returns:
        the result, and the target's statistics.
    """
    statistics = TargetStatistics(model)
    stored, batch_wise = [], []
    for images in batches:
        model.eval()
        stored.append(_histogram(probabilities(model(images))))
        batch_wise.append(_histogram(probabilities(statistics.observe(images))))
    classes_stored = effective_classes(torch.stack(stored).mean(0))
    classes_batch = effective_classes(torch.stack(batch_wise).mean(0))
    shift, factor = statistics.shift(), statistics.variance_factor()
    mismatched = not factor < config.max_variance_ratio  # also when it is NaN
    left = diversity_left(classes_stored, classes_batch, config.min_entropy)
    usable = not (mismatched and left < config.min_diversity) and shift < config.max_mean_shift
    found = StatisticsCheck(
        usable=usable,
        classes_stored=classes_stored,
        classes_batch=classes_batch,
        shift=shift,
        variance_factor=factor,
    )
    return found, statistics


def _histogram(probabilities: Tensor) -> Tensor:
    """The share of each class in the predictions (C,); NaN where they are not finite."""
    if not probabilities.isfinite().all():
        return torch.full((probabilities.shape[1],), float("nan"))
    labels = probabilities.max(1).indices.flatten()
    counts = torch.bincount(labels, minlength=probabilities.shape[1]).double()
    return (counts / counts.sum()).cpu()
