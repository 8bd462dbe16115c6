"""BatchNorm statistics, re-estimated on the target and mixed with the source's.

Replacing the statistics is AdaBN (Li et al., arXiv 1603.04779). On small or imbalanced target sets
that does harm, and a convex mix with the source's is better (Schneider et al., NeurIPS 2020, use
the source as a prior; UBNA, Klingner et al., 2021, decays the momentum to the same end).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from sfda_edge.adaptation.task import AdaptationTask
from sfda_edge.batchnorm.statistics import TargetStatistics, require_batchnorm
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


class BatchNormStatistics(AdaptationMethod):
    """Estimate every layer's input statistics while each batch is normalised by its own."""

    def __init__(self, task: AdaptationTask, recipe: BatchNormRecipe) -> None:
        self.task, self.model, self.recipe = task, task.model, recipe
        self.batch_size = recipe.batch_size
        self.num_steps = recipe.num_images // recipe.batch_size
        require_batchnorm(task.model, "bn")
        self.statistics = TargetStatistics(task.model)

    def step(self, images: Tensor, indices: Sequence[int], step: int) -> dict[str, float]:
        """Observe one batch; the model's own statistics stay untouched until ``finish``."""
        self.statistics.observe(self.task.inputs(images))
        return {"shift": self.statistics.shift()}

    def finish(self) -> None:
        """Mix the statistics into the model."""
        self.statistics.mix_into(self.model, self.recipe.target_share)

    def state(self) -> dict[str, Tensor]:
        """The sums of every layer."""
        return self.statistics.state()

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over the sums of every layer."""
        self.statistics.restore(state)
