"""Tent: minimise the entropy of the predictions over BatchNorm's scales and shifts alone.

Wang et al., "Tent: Fully Test-Time Adaptation by Entropy Minimization", ICLR 2021. Tent normalises
by batch statistics and throws the source's away; here the statistics are mixed once and kept, so
that the result is an ordinary network (``target_share = 1`` is the closest to the paper).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sfda_edge.adaptation.task import AdaptationTask
from sfda_edge.batchnorm.statistics import require_batchnorm
from sfda_edge.errors import RecipeError
from sfda_edge.methods.base import AdaptationMethod
from sfda_edge.recipes.recipe import require
from sfda_edge.selection.view_search import Views
from sfda_edge.training.distributed import mean_over, own_rows
from sfda_edge.training.losses import conditional, entropy_map
from sfda_edge.training.optimization import Learner, only_learning


@dataclass(frozen=True)
class TentRecipe:
    """Settings of ``tent``.

    Attributes:
        target_share: of the target in the BatchNorm statistics.
        steps, batch_size, seed: as they say.
        learning_rate: of Adam.
    """

    target_share: float = 0.3
    steps: int = 200
    batch_size: int = 4
    learning_rate: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.target_share <= 1, "target_share must be in [0, 1]", self.target_share)
        require(self.learning_rate > 0, "learning_rate must be above 0", self.learning_rate)
        require(min(self.steps, self.batch_size) >= 1, "steps and batch_size must be at least 1")


class Tent(AdaptationMethod):
    """One step of Adam on the entropy for every batch."""

    def __init__(self, task: AdaptationTask, recipe: TentRecipe) -> None:
        self.task, self.model, self.recipe = task, task.model, recipe
        self.num_steps, self.batch_size = recipe.steps, recipe.batch_size
        affine = [
            parameter
            for layer in require_batchnorm(task.model, "tent").values()
            for parameter in (layer.weight, layer.bias)
            if isinstance(parameter, nn.Parameter) and parameter.requires_grad
        ]
        if not affine:
            raise RecipeError(
                "tent learns the scales and shifts of BatchNorm layers; this network's have none "
                "(affine=False), or fixed ones (requires_grad=False). Method bn works without"
            )
        optimizer = torch.optim.Adam(affine, recipe.learning_rate)
        self._affine = affine
        self.learner = Learner(task.fabric, optimizer)

    def prepare(self, views: Views) -> None:
        """Mix the target's statistics in."""
        self.task.mix_target_statistics(self.recipe.target_share)

    def step(self, images: Tensor, indices: Sequence[int], step: int) -> dict[str, float]:
        """Lower the entropy of one batch."""
        with only_learning(self.model, self._affine):
            logits = self.task.logits(self.model, self.task.inputs(own_rows(images)))
        entropy = entropy_map(conditional(self.task.probabilities(logits)))
        loss = mean_over(entropy, torch.ones_like(entropy))
        self.learner.descend(loss, step)
        return {"loss": loss.item(), "pixels_used": 1.0}

    def state(self) -> dict[str, Any]:
        """Adam's moments."""
        return {"learner": self.learner.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over Adam's moments."""
        self.learner.restore(state["learner"])
