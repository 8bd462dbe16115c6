"""Our default: a teacher that looks in the best ways teaches a student at the device's size.

The source model sees far more of a target than it shows at the size that a device can afford: at
another resolution, in the mirror, with some of the target in its BatchNorm statistics. Which views
are good is found without labels (``views.py``). Together they label the target, softly; a student
at the deployment size learns these labels, sharpened, on strongly augmented images and ClassMix,
the rarer a class, the more. The answer is the student's moving average.

What each part brings, and what did not help, is in ``benchmarks/results/adaptation.md``.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sfda_edge.augmentation import Lesson, StrongAugmentation, class_mix
from sfda_edge.learner import Learner, polynomial_decay
from sfda_edge.losses import soft_cross_entropy
from sfda_edge.methods.base import AdaptationMethod
from sfda_edge.processes import own_rows
from sfda_edge.pseudo_labels import label_target, sharpened
from sfda_edge.recipe import require
from sfda_edge.task import AdaptationTask
from sfda_edge.teacher import Teacher
from sfda_edge.views import Views


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
        average_decay: of the student's moving average, a step.
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
    average_decay: float = 0.98
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
        require(0 <= self.average_decay < 1, "average_decay must be in [0, 1)", self.average_decay)
        require(0 < self.min_scale <= 1, "min_scale must be in (0, 1]", self.min_scale)


class MultiView(AdaptationMethod):
    """The student, its moving average (which is the adapted model) and the teacher's labels."""

    taught_by_views = True

    def __init__(self, task: AdaptationTask, recipe: MultiViewRecipe) -> None:
        self.task, self.model, self.recipe = task, task.model, recipe
        self.num_steps, self.batch_size = recipe.steps, recipe.batch_size
        self.augment = StrongAugmentation(
            task.spec.input_hw, recipe.min_scale, recipe.colour_jitter, recipe.blur_share
        )
        self.student = copy.deepcopy(task.model)
        optimizer = torch.optim.AdamW(
            self.student.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
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
        self.student.load_state_dict(task.model.state_dict())

    def step(self, images: Tensor, indices: Sequence[int], step: int) -> dict[str, float]:
        """Learn the teacher's labels on augmented, mixed images."""
        task = self.task
        taught = self.labels.read(indices, task.spec.input_hw, task.device)
        taught = sharpened(taught, self.recipe.sharpness)
        lesson = class_mix(self.augment(Lesson(images.float(), taught)))
        logits = task.logits(self.student, task.inputs(own_rows(lesson.images)))
        loss = soft_cross_entropy(
            task.probabilities(logits), own_rows(lesson.taught), self.class_weights
        )
        self.learner.descend(loss, step)
        self._follow(step)
        return {
            "loss": loss.item(),
            "pixels_used": (lesson.taught.sum(1) > 0).float().mean().item(),
        }

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Move the average towards the student, quickly at first."""
        decay = min(self.recipe.average_decay, (step + 1) / (step + 10))
        for average, newest in zip(self.model.parameters(), self.student.parameters(), strict=True):
            average.lerp_(newest, 1 - decay)

    def compile(self) -> None:
        """The student alone: its average runs too rarely to be worth compiling."""
        self.student.compile()

    def state(self) -> dict[str, Any]:
        """The student and its optimiser; the labels are in a file of the run."""
        return {"student": self.student.state_dict(), "learner": self.learner.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the student and its optimiser."""
        self.student.load_state_dict(state["student"])
        self.learner.restore(state["learner"])


def rarity_weights(shares: Tensor, power: float) -> Tensor:
    """share^-power of each class, scaled to mean 1 over all pixels; 1 for a class never seen."""
    weights = torch.where(shares > 0, shares, torch.ones_like(shares)).pow(-power)
    return weights / (weights * shares).sum()
