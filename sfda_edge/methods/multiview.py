"""Multi-view distillation, the default method: an ensemble of views trains a student.

The source model is often far more accurate on a target at another input size, with mirrored
predictions averaged in, or with some of the target in its BatchNorm statistics. Which views are
accurate is found without labels (``selection/view_search.py``). Their mean prediction labels the
target, softly; a student at the deployment size, which is the source model itself, is trained on
these labels, sharpened, with strong augmentation, ClassMix and more weight on classes
that are rare and that the views do not agree on.

What each part brings, and what did not help: ``benchmarks/results/adaptation.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfda_edge.methods.base import AdaptationMethod
from sfda_edge.recipes.recipe import require, require_augmentation, require_training
from sfda_edge.selection.test_time_ensemble import TestTimeEnsemble
from sfda_edge.selection.view_search import SelectedViews
from sfda_edge.task import AdaptationTask
from sfda_edge.training.augmentation import LabelledBatch, StrongAugmentation, class_mix
from sfda_edge.training.losses import soft_cross_entropy
from sfda_edge.training.optimization import ScheduledOptimizer, polynomial_decay
from sfda_edge.training.pseudo_labels import label_target, sharpened


@dataclass(frozen=True)
class MultiViewRecipe:
    """Settings of ``multiview``.

    Attributes:
        steps: number of batches.
        batch_size: images of a batch, over all processes.
        learning_rate, weight_decay: of AdamW.
        warmup_steps: in which the learning rate rises linearly from zero; a tenth of the steps at
            most.
        sharpness: power of the ensemble's probabilities; 1 leaves them, and the student as
            uncertain as the mean of all views.
        rarity_weight: a class of a share s of the pixels weighs s^-rarity_weight at most, see
            ``class_weights``; 0 is equal.
        min_scale: crops keep at least this share of the image's area.
        colour_jitter: strength of brightness, contrast and saturation changes; hue a sixth of it.
        blur_share: share of blurred images.
        seed: of the order of images and of the augmentation.
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
        require_training(self)
        require_augmentation(self)
        require(self.sharpness >= 1, "sharpness must be at least 1", self.sharpness)
        require(0 <= self.rarity_weight <= 1, "rarity_weight must be in [0, 1]", self.rarity_weight)


class MultiView(AdaptationMethod):
    """The student, and the ensemble's labels."""

    name = "multiview"
    trains_on_ensemble = True

    def __init__(self, task: AdaptationTask, recipe: MultiViewRecipe) -> None:
        super().__init__(task, recipe)
        self.augment = StrongAugmentation(
            task.spec.input_hw, recipe.min_scale, recipe.colour_jitter, recipe.blur_share
        )
        adamw = torch.optim.AdamW(
            self.model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        schedule = polynomial_decay(recipe.steps, recipe.warmup_steps)
        self.optimizers = {"optimizer": ScheduledOptimizer(task.fabric, adamw, schedule)}

    def prepare(self, views: SelectedViews) -> None:
        """Label the target with the selected views, unless an earlier part of the run has."""
        task = self.task
        ensemble = TestTimeEnsemble(task, task.model, views.kept, views.statistics)
        self.labels = label_target(
            task, "views", lambda images: ensemble.probabilities(images, task.half_hw), keep=True
        )
        rarity = rarity_weights(
            self.labels.class_shares, self.recipe.rarity_weight, task.selection.rare_class_share
        )
        self.class_weights = class_weights(
            self.labels.class_shares, rarity, views.agreement.cpu(), self.recipe.sharpness
        ).to(task.device)
        task.mix_target_statistics(views.kept[0].target_share)

    def step(self, images: Tensor, indices: Sequence[int], step: int) -> dict[str, float]:
        """Train on the ensemble's labels of augmented, mixed images."""
        task = self.task
        soft_labels = self.labels.read(indices, task.spec.input_hw, task.device)
        soft_labels = sharpened(soft_labels, self.recipe.sharpness)
        batch = class_mix(self.augment(LabelledBatch(images.float(), soft_labels)))
        logits = task.logits(self.model, task.inputs(batch.images))
        probabilities = task.probabilities(logits)
        loss = soft_cross_entropy(probabilities, batch.soft_labels, self.class_weights)
        self.optimizers["optimizer"].minimize(loss, step)
        used = (batch.soft_labels.sum(1) > 0).float().mean().item()
        return {"loss": loss.item(), "pixels_used": used}


def rarity_weights(shares: Tensor, power: float, rare_share: float) -> Tensor:
    """share^-power of each class, 1 and more.

    Args:
        shares: of all pixels, (C,).
        power: how strongly rare classes are favoured.
        rare_share: a class in fewer pixels may not be there at all: the fewer, the less it is
            favoured; one that never occurs weighs what a class everywhere would.
    """
    believed = (shares / rare_share).clamp_max(1)
    favoured = shares.clamp_min(rare_share).pow(-power)
    return torch.lerp(torch.ones_like(shares), favoured, believed)


def class_weights(shares: Tensor, rarity: Tensor, agreement: Tensor, sharpness: float) -> Tensor:
    """What each class weighs in the loss, scaled to mean 1 over all pixels.

    A pixel that has a class with probability p adds p to the intersection and 1 - p to the union,
    so a class of IoU J gains by it where its odds are above J (Nowozin, CVPR 2014). For that its
    odds have to count 1 / J times, and those of sharpened labels as often to the same power. J is
    not known: the square of the IoU between two views stands for it, since views of one network
    share errors, of thin and small things most. But they also disagree on a frequent class that one
    of them makes up, and that must not be favoured: rarity is the upper bound.

    Args:
        shares: of all pixels, (C,).
        rarity: the most that each class may weigh against one that is everywhere.
        agreement: IoU of each class between the views, in [0, 1], (C,).
        sharpness: power of the labels' odds.
    """
    weights = torch.minimum(rarity, agreement.pow(-2 * sharpness))
    return weights / (weights * shares).sum()
