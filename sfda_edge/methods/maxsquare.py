"""MaxSquare on the target only: self-supervision without any memory of the source.

Chen, Xue and Cai, "Domain Adaptation for Semantic Segmentation with Maximum Squares Loss", ICCV
2019; SFDA's L_TAR (E1). The gradient of −p² grows with p more slowly than entropy's, so that easy
pixels do not outweigh the hard ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from sfda_edge.methods.base import AdaptationMethod
from sfda_edge.recipes.recipe import TargetShare, require_target_share, require_training
from sfda_edge.task import AdaptationTask
from sfda_edge.training.losses import image_wise_max_square, max_square
from sfda_edge.training.optimization import ScheduledOptimizer, polynomial_decay, segmentation_sgd


@dataclass(frozen=True)
class MaxSquareRecipe:
    """Settings of ``maxsquare``.

    Attributes:
        target_share: share of the target in the BatchNorm statistics, in [0, 1], or "auto": found
            without labels; the paper leaves the source's.
        steps: number of batches.
        batch_size: images of a batch, over all processes.
        learning_rate: of SGD.
        image_wise: weight classes by how rare they are in each image (equation 8 of the paper).
        image_wise_ratio: how strongly.
        seed: of the order of images.
    """

    target_share: TargetShare = "auto"
    steps: int = 200
    batch_size: int = 4
    learning_rate: float = 2.5e-4
    image_wise: bool = True
    image_wise_ratio: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        require_target_share(self.target_share)
        require_training(self)


class MaxSquare(AdaptationMethod):
    """One step of SGD on the squares of every batch."""

    name = "maxsquare"

    def __init__(self, task: AdaptationTask, recipe: MaxSquareRecipe) -> None:
        super().__init__(task, recipe)
        sgd = segmentation_sgd(task.model, recipe.learning_rate)
        schedule = polynomial_decay(recipe.steps)
        self.optimizers = {"optimizer": ScheduledOptimizer(task.fabric, sgd, schedule)}

    def step(self, images: Tensor, indices: Sequence[int], step: int) -> dict[str, float]:
        """Raise the squares of one batch."""
        recipe = self.recipe
        logits = self.task.logits(self.model, self.task.inputs(images))
        probabilities = self.task.probabilities(logits)
        if recipe.image_wise:
            loss = image_wise_max_square(probabilities, recipe.image_wise_ratio)
        else:
            loss = max_square(probabilities)
        self.optimizers["optimizer"].minimize(loss, step)
        return {"loss": loss.item(), "pixels_used": 1.0}
