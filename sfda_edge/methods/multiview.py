"""Our default: a teacher that looks in the best ways teaches a student at the device's size.

The source model sees far more of a target than it shows at the size that a device can afford: at
another resolution, in the mirror, with some of the target in its BatchNorm statistics. Which views
are good is found without labels (``views.py``). Together they label the target, softly; a student
at the deployment size, which is the source model itself, learns these labels, sharpened, on
strongly augmented images and ClassMix, the rarer a class, the more.

What each part brings, and what did not help, is in ``benchmarks/results/adaptation.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sfda_edge.adaptation.task import AdaptationTask
from sfda_edge.methods.base import AdaptationMethod
from sfda_edge.recipes.recipe import require
from sfda_edge.selection.test_time_ensemble import Teacher
from sfda_edge.selection.view_search import RARE_SHARE, Views
from sfda_edge.training.augmentation import Lesson, StrongAugmentation, class_mix
from sfda_edge.training.distributed import own_rows
from sfda_edge.training.losses import soft_cross_entropy
from sfda_edge.training.optimization import Learner, polynomial_decay
from sfda_edge.training.pseudo_labels import label_target, sharpened


@dataclass(frozen=True)
class MultiViewRecipe:
    """Settings of ``default``.

    Attributes:
        steps, batch_size, seed: as they say.
        learning_rate, weight_decay: of AdamW.
        warmup_steps: linear, from zero.
        sharpness: power of the teacher's probabilities; 1 leaves them, and the student as unsure
            as the mean of all views.
        rarity_weight: a class of a share s of the pixels weighs s^-rarity_weight; 0 is equal.
        min_scale: crops keep at least this share of the image's area.
        colour_jitter: strength of brightness, contrast and saturation changes; hue a sixth of it.
        blur_share: share of blurred images.
    """

    steps: int = 300
    batch_size: int = 4
    learning_rate: float = 5e-4
    weight_decay: float = 1e-4
    warmup_steps: int = 30
    sharpness: float = 2.0
    rarity_weight: float = 0.4
    min_scale: float = 0.9
    colour_jitter: float = 0.3
    blur_share: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        require(min(self.steps, self.batch_size) >= 1, "steps and batch_size must be at least 1")
        require(self.learning_rate > 0, "learning_rate must be above 0", self.learning_rate)
        require(
            self.weight_decay >= 0 and self.warmup_steps >= 0,
            "weight_decay and warmup_steps must not be below 0",
        )
        require(
            0 <= self.colour_jitter <= 1 and 0 <= self.blur_share <= 1,
            "colour_jitter and blur_share must be in [0, 1]",
        )
        require(self.sharpness >= 1, "sharpness must be at least 1", self.sharpness)
        require(0 <= self.rarity_weight <= 1, "rarity_weight must be in [0, 1]", self.rarity_weight)
        require(0 < self.min_scale <= 1, "min_scale must be in (0, 1]", self.min_scale)


class MultiView(AdaptationMethod):
    """The student and the teacher's labels."""

    taught_by_views = True

    def __init__(self, task: AdaptationTask, recipe: MultiViewRecipe) -> None:
        self.task, self.model, self.recipe = task, task.model, recipe
        self.num_steps, self.batch_size = recipe.steps, recipe.batch_size
        self.augment = StrongAugmentation(
            task.spec.input_hw, recipe.min_scale, recipe.colour_jitter, recipe.blur_share
        )
        optimizer = torch.optim.AdamW(
            self.model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.learner = Learner(
            task.fabric, optimizer, polynomial_decay(recipe.steps, recipe.warmup_steps)
        )

    def prepare(self, views: Views) -> None:
        """Label the target with the source's good views, unless an earlier part of the run has."""
        task = self.task
        teacher = Teacher(task, task.model, views.kept)
        self.labels = label_target(
            task, "views", lambda images: teacher.probabilities(images, task.half_hw), keep=True
        )
        shares = self.labels.class_shares
        self.class_weights = rarity_weights(shares, self.recipe.rarity_weight).to(task.device)
        task.mix_target_statistics(views.kept[0].target_share)

    def step(self, images: Tensor, indices: Sequence[int], step: int) -> dict[str, float]:
        """Learn the teacher's labels on augmented, mixed images."""
        task = self.task
        taught = self.labels.read(indices, task.spec.input_hw, task.device)
        taught = sharpened(taught, self.recipe.sharpness)
        lesson = class_mix(self.augment(Lesson(images.float(), taught)))
        logits = task.logits(self.model, task.inputs(own_rows(lesson.images)))
        loss = soft_cross_entropy(
            task.probabilities(logits), own_rows(lesson.taught), self.class_weights
        )
        self.learner.descend(loss, step)
        return {
            "loss": loss.item(),
            "pixels_used": (lesson.taught.sum(1) > 0).float().mean().item(),
        }

    def state(self) -> dict[str, Any]:
        """The optimiser's moments; the labels are in a file of the run."""
        return {"learner": self.learner.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the optimiser's moments."""
        self.learner.restore(state["learner"])


def rarity_weights(shares: Tensor, power: float) -> Tensor:
    """share^-power of each class, scaled to mean 1 over all pixels.

    A class in so few pixels that it may not be there at all is favoured the less, the fewer they
    are; one never seen weighs what a class everywhere would.
    """
    believed = (shares / RARE_SHARE).clamp_max(1)
    favoured = shares.clamp_min(RARE_SHARE).pow(-power)
    weights = torch.lerp(torch.ones_like(shares), favoured, believed)
    return weights / (weights * shares).sum()
