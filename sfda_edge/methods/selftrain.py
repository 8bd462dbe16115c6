"""Class-balanced self-training: train on the model's own most confident labels, in rounds.

Zou et al., "Unsupervised Domain Adaptation for Semantic Segmentation via Class-Balanced
Self-Training", ECCV 2018: in each round the model labels the target, the most confident share of
every class is kept, and the share grows from round to round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfda_edge.errors import RunError
from sfda_edge.methods.base import AdaptationMethod
from sfda_edge.recipes.recipe import TargetShare, require, require_target_share, require_training
from sfda_edge.task import AdaptationTask
from sfda_edge.training.losses import masked_cross_entropy
from sfda_edge.training.optimization import ScheduledOptimizer, polynomial_decay, segmentation_sgd
from sfda_edge.training.pseudo_labels import PseudoLabels, label_bytes, label_target


@dataclass(frozen=True)
class SelfTrainingRecipe:
    """Settings of ``selftrain``.

    Attributes:
        target_share: share of the target in the BatchNorm statistics, in [0, 1], or "auto": found
            without labels.
        steps: number of batches, divided among the rounds.
        batch_size: images of a batch, over all processes.
        rounds: how often the target is labelled.
        portion: share of each class's pixels that is kept in the first round.
        portion_growth: more in every further round.
        learning_rate: of SGD.
        seed: of the order of images.
    """

    target_share: TargetShare = "auto"
    steps: int = 200
    batch_size: int = 4
    rounds: int = 2
    portion: float = 0.2
    portion_growth: float = 0.05
    learning_rate: float = 2.5e-4
    seed: int = 0

    def __post_init__(self) -> None:
        require_target_share(self.target_share)
        require_training(self)
        require(1 <= self.rounds <= self.steps, "rounds must be in [1, steps]", self.rounds)
        last = self.portion + (self.rounds - 1) * self.portion_growth
        require(
            self.portion > 0 and self.portion_growth >= 0 and last <= 1,
            "portion must be above 0 and grow to at most 1 in the last round",
            last,
        )


class SelfTraining(AdaptationMethod):
    """Label, train, label again."""

    name = "selftrain"

    def __init__(self, task: AdaptationTask, recipe: SelfTrainingRecipe) -> None:
        super().__init__(task, recipe)
        sgd = segmentation_sgd(task.model, recipe.learning_rate)
        schedule = polynomial_decay(recipe.steps)
        self.optimizers = {"optimizer": ScheduledOptimizer(task.fabric, sgd, schedule)}
        self.labels: PseudoLabels | None = None

    def _round(self, step: int) -> int:
        return step * self.recipe.rounds // self.recipe.steps

    def step(self, images: Tensor, indices: Sequence[int], step: int) -> dict[str, float]:
        """Train on the round's labels; a round's first step makes them."""
        pseudo_labels, task = self._labels_for(step), self.task
        confidence, labels = pseudo_labels.read(indices, task.spec.input_hw, task.device).max(1)
        portion = self.recipe.portion + self._round(step) * self.recipe.portion_growth
        kept = (confidence >= pseudo_labels.thresholds(portion).to(task.device)[labels]).float()
        logits = task.logits(self.model, task.inputs(images))
        loss = masked_cross_entropy(task.probabilities(logits), labels, kept)
        self.optimizers["optimizer"].minimize(loss, step)
        return {"loss": loss.item(), "pixels_used": kept.mean().item()}

    def _labels_for(self, step: int) -> PseudoLabels:
        number = self._round(step)
        begins = step == 0 or number != self._round(step - 1)
        if begins or self.labels is None:  # None in the middle of a round: a resumed run
            label = self._probabilities if begins else self._lost
            self.labels = label_target(self.task, f"round{number + 1}", label, keep=not begins)
        return self.labels

    def _lost(self, _images: Sequence[int]) -> Tensor:
        """In the middle of a round the model that made its labels has changed."""
        raise RunError(
            f"the round's labels are no longer in {self.task.work_dir}, or were made by another "
            "number of processes; start again with another --out"
        )

    def bytes_to_come(self) -> int:
        """The labels of every round."""
        return self.recipe.rounds * label_bytes(self.task)

    @torch.no_grad()
    def _probabilities(self, indices: Sequence[int]) -> Tensor:
        images = self.task.target.images(indices)
        logits = self.task.logits(self.model, self.task.inputs(images))
        return self.task.half_size(self.task.probabilities(logits))
