"""MaxSquare on the target alone: what self-supervision brings without any memory of the source.

Chen, Xue and Cai, "Domain Adaptation for Semantic Segmentation with Maximum Squares Loss", ICCV
2019; SFDA's L_TAR (E1). The gradient of −p² grows with p more slowly than entropy's, so that easy
pixels do not drown the hard ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sfda_edge.adaptation.task import AdaptationTask
from sfda_edge.methods.base import AdaptationMethod
from sfda_edge.recipes.recipe import require
from sfda_edge.selection.view_search import Views
from sfda_edge.training.distributed import own_rows
from sfda_edge.training.losses import image_wise_max_square, max_square
from sfda_edge.training.optimization import Learner, polynomial_decay, segmentation_sgd


@dataclass(frozen=True)
class MaxSquareRecipe:
    """Settings of ``maxsquare``.

    Attributes:
        target_share: of the target in the BatchNorm statistics; the paper leaves the source's.
        steps, batch_size, seed: as they say.
        learning_rate: of SGD.
        image_wise: weight classes by how rare they are in each image (their equation 8).
        image_wise_ratio: how strongly.
    """

    target_share: float = 0.3
    steps: int = 200
    batch_size: int = 4
    learning_rate: float = 2.5e-4
    image_wise: bool = True
    image_wise_ratio: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.target_share <= 1, "target_share must be in [0, 1]", self.target_share)
        require(self.learning_rate > 0, "learning_rate must be above 0", self.learning_rate)
        require(min(self.steps, self.batch_size) >= 1, "steps and batch_size must be at least 1")


class MaxSquare(AdaptationMethod):
    """One step of SGD on the squares for every batch."""

    def __init__(self, task: AdaptationTask, recipe: MaxSquareRecipe) -> None:
        self.task, self.model, self.recipe = task, task.model, recipe
        self.num_steps, self.batch_size = recipe.steps, recipe.batch_size
        optimizer = segmentation_sgd(task.model, recipe.learning_rate)
        self.learner = Learner(task.fabric, optimizer, polynomial_decay(recipe.steps))

    def prepare(self, views: Views) -> None:
        """Mix the target's statistics in."""
        self.task.mix_target_statistics(self.recipe.target_share)

    def step(self, images: Tensor, indices: Sequence[int], step: int) -> dict[str, float]:
        """Raise the squares of one batch."""
        recipe = self.recipe
        logits = self.task.logits(self.model, self.task.inputs(own_rows(images)))
        probabilities = self.task.probabilities(logits)
        if recipe.image_wise:
            loss = image_wise_max_square(probabilities, recipe.image_wise_ratio)
        else:
            loss = max_square(probabilities)
        self.learner.descend(loss, step)
        return {"loss": loss.item(), "pixels_used": 1.0}

    def state(self) -> dict[str, Any]:
        """The optimiser's moments."""
        return {"learner": self.learner.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the optimiser's moments."""
        self.learner.restore(state["learner"])
