"""Class-balanced self-training: learn from one's own surest labels, in rounds.

Zou et al., "Unsupervised Domain Adaptation for Semantic Segmentation via Class-Balanced
Self-Training", ECCV 2018: in each round the model labels the target, the surest share of every
class is kept, and the share grows from round to round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sfda_edge.adaptation.task import AdaptationTask
from sfda_edge.errors import RunError
from sfda_edge.methods.base import AdaptationMethod
from sfda_edge.recipes.recipe import require
from sfda_edge.selection.view_search import Views
from sfda_edge.training.distributed import own_rows
from sfda_edge.training.losses import masked_cross_entropy
from sfda_edge.training.optimization import Learner, polynomial_decay, segmentation_sgd
from sfda_edge.training.pseudo_labels import PseudoLabels, label_bytes, label_target


@dataclass(frozen=True)
class SelfTrainingRecipe:
    """Settings of ``selftrain``.

    Attributes:
        target_share: of the target in the BatchNorm statistics.
        steps, batch_size, seed: as they say; the steps are divided among the rounds.
        rounds: how often the target is labelled.
        portion: of each class's pixels that is kept in the first round.
        portion_growth: more in every further round.
        learning_rate: of SGD.
    """

    target_share: float = 0.3
    steps: int = 200
    batch_size: int = 4
    rounds: int = 2
    portion: float = 0.2
    portion_growth: float = 0.05
    learning_rate: float = 2.5e-4
    seed: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.target_share <= 1, "target_share must be in [0, 1]", self.target_share)
        require(self.learning_rate > 0, "learning_rate must be above 0", self.learning_rate)
        require(min(self.steps, self.batch_size) >= 1, "steps and batch_size must be at least 1")
        require(1 <= self.rounds <= self.steps, "rounds must be in [1, steps]", self.rounds)
        last = self.portion + (self.rounds - 1) * self.portion_growth
        require(
            self.portion > 0 and self.portion_growth >= 0 and last <= 1,
            "portion must be above 0 and grow to at most 1 in the last round",
            last,
        )


class SelfTraining(AdaptationMethod):
    """Label, learn, label again."""

    def __init__(self, task: AdaptationTask, recipe: SelfTrainingRecipe) -> None:
        self.task, self.model, self.recipe = task, task.model, recipe
        self.num_steps, self.batch_size = recipe.steps, recipe.batch_size
        optimizer = segmentation_sgd(task.model, recipe.learning_rate)
        self.learner = Learner(task.fabric, optimizer, polynomial_decay(recipe.steps))
        self.labels: PseudoLabels | None = None

    def prepare(self, views: Views) -> None:
        """Mix the target's statistics in."""
        self.task.mix_target_statistics(self.recipe.target_share)

    def _round(self, step: int) -> int:
        return step * self.recipe.rounds // self.recipe.steps

    def step(self, images: Tensor, indices: Sequence[int], step: int) -> dict[str, float]:
        """Learn from the round's labels; a round's first step makes them."""
        pseudo_labels = self._labels_for(step)
        task = self.task
        sureness, labels = pseudo_labels.read(indices, task.spec.input_hw, task.device).max(1)
        portion = self.recipe.portion + self._round(step) * self.recipe.portion_growth
        kept = (sureness >= pseudo_labels.thresholds(portion).to(task.device)[labels]).float()
        logits = task.logits(self.model, task.inputs(own_rows(images)))
        loss = masked_cross_entropy(
            task.probabilities(logits),
            own_rows(labels),
            own_rows(kept),
        )
        self.learner.descend(loss, step)
        return {"loss": loss.item(), "pixels_used": kept.mean().item()}

    def _labels_for(self, step: int) -> PseudoLabels:
        number = self._round(step)
        begins = step == 0 or number != self._round(step - 1)
        if begins or self.labels is None:  # None in the middle of a round: a resumed run
            label = self._probabilities if begins else self._gone
            self.labels = label_target(self.task, f"round{number + 1}", label, keep=not begins)
        return self.labels

    def _gone(self, _images: Sequence[int]) -> Tensor:
        """In the middle of a round the model that made its labels has moved on."""
        raise RunError(
            f"the round's labels are no longer in {self.task.work_dir}, or were made by another "
            "number of processes; start afresh with another --out"
        )

    def bytes_to_come(self) -> int:
        """The labels of every round."""
        return self.recipe.rounds * label_bytes(self.task)

    @torch.no_grad()
    def _probabilities(self, indices: Sequence[int]) -> Tensor:
        images = self.task.target.images(indices)
        logits = self.task.logits(self.model, self.task.inputs(images))
        return self.task.half_size(self.task.probabilities(logits))

    def state(self) -> dict[str, Any]:
        """The optimiser's moments; the labels are in the run's own files."""
        return {"learner": self.learner.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the optimiser's moments."""
        self.learner.restore(state["learner"])
