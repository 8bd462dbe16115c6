"""IntraDomainPatches: hard patches of the target learn to look like easy ones (L_ADV, E14)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sfda_edge.methods.sfda.discriminator import PatchDiscriminator
from sfda_edge.methods.sfda.patches import (
    chosen,
    easy_and_hard,
    patch_entropy,
    split_patches,
    weighted_self_information,
)
from sfda_edge.methods.sfda.recipe import SfdaRecipe
from sfda_edge.runs.distributed import gathered
from sfda_edge.task import AdaptationTask
from sfda_edge.training.optimization import ScheduledOptimizer, only_trainable


class IntraDomainPatches:
    """The patch discriminator, what it learns, and what the student learns from it."""

    def __init__(self, task: AdaptationTask, recipe: SfdaRecipe) -> None:
        self.task, self.recipe = task, recipe
        positions = recipe.patches_per_side**2
        self.discriminator = task.placed(PatchDiscriminator(task.num_classes, positions))
        adam = torch.optim.Adam(
            self.discriminator.parameters(),
            recipe.discriminator_learning_rate,
            betas=(0.9, 0.99),
        )
        self.optimizer = ScheduledOptimizer(task.fabric, adam)

    def adversarial(self, probabilities: Tensor) -> Tensor:
        """−log D(k, hard): hard patches should look easy (E14, the practical reading of ADVENT).

        ``probabilities`` are those of this process's images, (N, C, H, W).
        """
        patches, _, hard = self._split(probabilities)
        with only_trainable(self.discriminator):
            answers = self.discriminator(*chosen(patches, hard))
        return functional.softplus(-answers).mean()

    def train(self, probabilities: Tensor, step: int) -> float:
        """One step of the discriminator: easy patches are 1, hard ones 0 (E14). Returns its loss.

        ``probabilities`` (N, C, H, W) carry no gradient.
        """
        patches, easy, hard = self._split(probabilities)
        for_easy = self.discriminator(*chosen(patches, easy))
        for_hard = self.discriminator(*chosen(patches, hard))
        loss = (functional.softplus(-for_easy).mean() + functional.softplus(for_hard).mean()) / 2
        self.optimizer.minimize(loss, step)
        return loss.item()

    def _split(self, probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All patch maps (N, K², C, h, w) of the global batch; which are easy and which hard.

        At half the input size: networks answer at half to an eighth of it and interpolate, so that
        full maps hold nothing more and cost the discriminator more than the student itself.
        """
        everything = gathered(self.task.half_size(probabilities))
        easy, hard = easy_and_hard(patch_entropy(everything.detach(), self.recipe.patches_per_side))
        maps = everything
        if self.recipe.patch_maps == "self-information":
            maps = weighted_self_information(everything)
        return split_patches(maps, self.recipe.patches_per_side), easy, hard
