"""BatchNorm statistics, re-estimated on the target and mixed with the source's.

Replacing the statistics is AdaBN (Li et al., arXiv 1603.04779). On small or imbalanced target sets
that loses accuracy, and a convex mix with the source's is better (Schneider et al., NeurIPS 2020,
use the source as a prior; UBNA, Klingner et al., 2021, decays the momentum to the same end).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfda_edge.batchnorm.statistics import TargetStatistics
from sfda_edge.methods.base import AdaptationMethod
from sfda_edge.recipes.recipe import TargetShare, require, require_target_share
from sfda_edge.selection.view_search import SelectedViews
from sfda_edge.task import AdaptationTask


@dataclass(frozen=True)
class BatchNormRecipe:
    """Settings of ``bn``.

    Attributes:
        target_share: share of the target in mean and variance, in [0, 1]; 0 leaves the source's
            statistics, 1 replaces them; "auto" is found without labels.
        num_images: target images that the statistics are estimated from.
        batch_size: images of one forward pass.
        seed: of the choice of images.
    """

    target_share: TargetShare = "auto"
    num_images: int = 48
    batch_size: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        require_target_share(self.target_share)
        require(
            self.batch_size >= 1
            and self.num_images >= 1
            and self.num_images % self.batch_size == 0,
            "num_images must be a multiple of batch_size",
            f"{self.num_images} and {self.batch_size}",
        )

    @property
    def steps(self) -> int:
        """Number of batches."""
        return self.num_images // self.batch_size


class BatchNormStatistics(AdaptationMethod):
    """Estimate every layer's input statistics while each batch is normalised by its own."""

    name = "bn"
    needs_batchnorm = True
    compares_sizes = False  # it would take several times as long as the method
    whole_batches = True  # a batch is normalised by all of its images

    def __init__(self, task: AdaptationTask, recipe: BatchNormRecipe) -> None:
        super().__init__(task, recipe)
        self.statistics = TargetStatistics(task.model)
        self._share = 0.0  # until it is found

    def prepare(self, views: SelectedViews) -> None:
        """Only the share: the statistics are what the steps estimate."""
        self._share = self._target_share(views)

    def step(self, images: Tensor, indices: Sequence[int], step: int) -> dict[str, float]:
        """Observe one batch; the model's own statistics do not change before ``finish``."""
        self.statistics.observe(self.task.inputs(images))
        return {"shift": self.statistics.shift()}

    def finish(self) -> None:
        """Mix the statistics into the model."""
        self.statistics.mix_into(self.model, self._share)

    def state(self) -> dict[str, Tensor]:
        """The sums of every layer, and the share."""
        share = torch.tensor(self._share, dtype=torch.float64)
        return {**self.statistics.state(), "target_share": share}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore what ``state`` returned."""
        self.statistics.restore(state)
        self._share = float(state["target_share"])
