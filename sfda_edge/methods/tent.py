"""Tent: minimise the entropy of the predictions over BatchNorm's scales and shifts only.

Wang et al., "Tent: Fully Test-Time Adaptation by Entropy Minimization", ICLR 2021. Tent normalises
by batch statistics and discards the source's; here the statistics are mixed once and kept, so that
the result is an ordinary network (``target_share = 1`` is the closest to the paper).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfda_edge.batchnorm.layers import batchnorm_layers
from sfda_edge.errors import RecipeError
from sfda_edge.methods.base import AdaptationMethod
from sfda_edge.recipes.recipe import TargetShare, require_target_share, require_training
from sfda_edge.runs.distributed import mean_over
from sfda_edge.task import AdaptationTask
from sfda_edge.training.losses import conditional, entropy_map
from sfda_edge.training.optimization import ScheduledOptimizer, only_trainable


@dataclass(frozen=True)
class TentRecipe:
    """Settings of ``tent``.

    Attributes:
        target_share: share of the target in the BatchNorm statistics, in [0, 1], or "auto": found
            without labels.
        steps: number of batches.
        batch_size: images of a batch, over all processes.
        learning_rate: of Adam.
        seed: of the order of images.
    """

    target_share: TargetShare = "auto"
    steps: int = 200
    batch_size: int = 4
    learning_rate: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        require_target_share(self.target_share)
        require_training(self)


class Tent(AdaptationMethod):
    """One step of Adam on the entropy of every batch."""

    name = "tent"
    needs_batchnorm = True

    def __init__(self, task: AdaptationTask, recipe: TentRecipe) -> None:
        super().__init__(task, recipe)
        self._affine = [
            parameter
            for layer in batchnorm_layers(task.model).values()
            for parameter in (layer.weight, layer.bias)
            if isinstance(parameter, nn.Parameter) and parameter.requires_grad
        ]
        if not self._affine:
            raise RecipeError(
                "method tent trains the scales and shifts of BatchNorm layers; this network has "
                "none (affine=False), or frozen ones (requires_grad=False). Method bn needs none"
            )
        adam = torch.optim.Adam(self._affine, recipe.learning_rate)
        self.optimizers = {"optimizer": ScheduledOptimizer(task.fabric, adam)}

    def step(self, images: Tensor, indices: Sequence[int], step: int) -> dict[str, float]:
        """Lower the entropy of one batch."""
        with only_trainable(self.model, self._affine):
            logits = self.task.logits(self.model, self.task.inputs(images))
        entropy = entropy_map(conditional(self.task.probabilities(logits)))
        loss = mean_over(entropy, torch.ones_like(entropy))
        self.optimizers["optimizer"].minimize(loss, step)
        return {"loss": loss.item(), "pixels_used": 1.0}
