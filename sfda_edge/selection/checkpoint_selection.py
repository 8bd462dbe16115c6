"""CheckpointSelection: scores checkpoints without labels and keeps the best one.

Label-free model selection. The score is the expected mIoU (``expected_score.py``) of a model's
labels if the truth were drawn half from the ensemble of the source model's own best views, and half
were what the model itself predicts for the mirror image. The first half is fixed before training,
so a model that drifts away from the source loses there. The second half measures what the source
cannot know: a model that fits the target predicts the same when the image is mirrored. Mirrored
predictions count as labels, not as probabilities, so that a method gains nothing by being
confident. Classes weigh the same, so a collapse loses nearly all.

Two rules reject a checkpoint whatever its score. Where a target shows little but road, classes can
be invented: a checkpoint that expects 5 % more wrong pixels than the source is rejected. And a
student trained on the ensemble's own labels agrees with them by construction: on targets without
domain shift such scores rose while accuracy fell, so a student needs more than that. How much more
is measured as an effect size, Cohen's h (Statistical Power Analysis, 1988, ch. 6): a share of the
score would ask too little of a low one, and the impossible of a high one. This protects the source
model, not the model before the first step. ``SelectionConfig.keep`` overrules all of it. How well
the score ranks models: ``benchmarks/results/adaptation.md``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sfda_edge.runs.distributed import reduced
from sfda_edge.selection.diversity import diversity_left, effective_classes
from sfda_edge.selection.expected_score import class_shares, expected_score, frequent_classes
from sfda_edge.selection.view_search import SelectedViews
from sfda_edge.task import AdaptationTask


@dataclass(frozen=True)
class CheckpointScore:
    """A model's label-free score.

    Attributes:
        score: expected mIoU, in [0, 1]; 0 when the predictions are not finite.
        accuracy: expected share of correct pixels, in [0, 1].
        class_shares: share of the pixels of each class.
        confidence: mean highest probability.
    """

    score: float
    accuracy: float
    class_shares: tuple[float, ...]
    confidence: float

    @property
    def num_effective_classes(self) -> float:
        """exp(entropy of the class shares)."""
        return effective_classes(torch.tensor(self.class_shares, dtype=torch.float64))


class CheckpointSelection:
    """Scores models on the probe images and remembers the best one's weights.

    Args:
        task: before training: its model is the source.
        views: of the source model.

    Attributes:
        source: the source model's score.
        best: the score of the model that is kept, the best so far unless ``keep`` says otherwise.
        best_step: its step; None while that is the source.
    """

    def __init__(self, task: AdaptationTask, views: SelectedViews) -> None:
        self._task, self._views, self._config = task, views, task.selection
        self._counted = frequent_classes(views.consensus, task.selection.rare_class_share)
        self.source = self.best = self.score(task.model)
        self.best_step: int | None = None
        self._weights = _copied(task.model)

    @torch.no_grad()
    def score(self, model: nn.Module) -> CheckpointScore:
        """Score a model, which stays as it is."""
        was_training = model.training
        model.eval()
        probe, count = self._views.probe, self._config.probe_batch_size
        batches = [probe[start : start + count] for start in range(0, len(probe), count)]
        found = [self._predictions(model, batch) for batch in batches or [()]]
        model.train(was_training)
        labels, mirrored, confidence = (torch.cat(parts) for parts in zip(*found, strict=True))
        return self._scored(labels, mirrored, confidence)

    def _predictions(
        self, model: nn.Module, images: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Labels, labels of the mirror image mirrored back, and confidences, each (N, h, w)."""
        task = self._task
        if not images:  # more processes than probe images
            none = torch.zeros((0, *task.half_hw), dtype=torch.long, device=task.device)
            return none, none, none.float()
        inputs = task.inputs(task.target.images(images))

        def probabilities(view: Tensor) -> Tensor:
            return task.half_size(task.probabilities(task.logits(model, view)))

        best = probabilities(inputs.clone()).max(1)  # some networks change their input
        mirrored = probabilities(inputs.flip(3)).flip(3).max(1).indices
        return best.indices, mirrored, best.values

    def _scored(self, labels: Tensor, mirrored: Tensor, confidence: Tensor) -> CheckpointScore:
        """The score over all processes, so that all keep, and stop at, the same model."""
        shares = class_shares(labels, self._task.num_classes).tolist()
        total = torch.tensor([confidence.sum(), confidence.numel()], dtype=torch.float64)
        (total,) = reduced(total)
        mean_confidence = float(total[0] / total[1])
        # Half of the truth is the ensemble's, the other half the mirror image's.
        truth = self._views.consensus / 2
        half = torch.full_like(mirrored, 0.5, dtype=truth.dtype)
        truth.scatter_add_(1, mirrored[:, None], half[:, None])
        found = expected_score(labels, truth, self._counted)
        score = found.miou if math.isfinite(mean_confidence) else 0.0
        return CheckpointScore(score, found.accuracy, tuple(shares), mean_confidence)

    def consider(self, model: nn.Module, step: int, *, student: bool = False) -> CheckpointScore:
        """Score a checkpoint and keep it when it is the best so far.

        Args:
            model: the checkpoint.
            step: its step.
            student: whether it was trained on the ensemble's labels.
        """
        unchanged = step == 0 and self.best_step is None and self._is_source(model)
        found = self.source if unchanged else self.score(model)
        if self._is_kept(found, student=student):
            self.best, self.best_step = found, step
            self._weights = _copied(model)
        return found

    def _is_source(self, model: nn.Module) -> bool:
        """Whether a model's weights and statistics are still the source's, which is kept."""
        state = model.state_dict()
        return all(
            torch.equal(state[name], kept.to(state[name].device))  # of a resumed run, on the CPU
            for name, kept in self._weights.items()
        )

    def _is_kept(self, found: CheckpointScore, *, student: bool) -> bool:
        if self._config.keep != "best":
            return self._config.keep == "last" and math.isfinite(found.confidence)
        rejected = self.rejection_reason(found.score, found.accuracy, student=student)
        return found.score > self.best.score and not rejected

    def rejection_reason(self, score: float, accuracy: float, *, student: bool) -> str:
        """Why a checkpoint is rejected whatever its score; empty if it is not."""
        source, config = self.source, self._config
        if 1 - accuracy > config.max_error_ratio * (1 - source.accuracy):
            return (
                f"{100 * (1 - accuracy):.1f} % wrong pixels are expected, "
                f"{100 * (1 - source.accuracy):.1f} % of the source model"
            )
        if student and score < self.least_student_score:
            return (
                "a student trained on the ensemble's labels must score at least "
                f"{self.least_student_score:.3f}"
            )
        return ""

    @property
    def least_student_score(self) -> float:
        """What a student has to score: the source's score, and ``min_student_effect`` above it."""
        half_angle = math.asin(math.sqrt(self.source.score)) + self._config.min_student_effect / 2
        return math.sin(min(half_angle, math.pi / 2)) ** 2

    def collapse_reason(self, found: CheckpointScore) -> str:
        """How a model has lost the source model's classes; empty if it has not.

        A source model may predict classes that are not there: fewer classes are no collapse while
        the score rises.
        """
        if not math.isfinite(found.confidence):
            return "the network's predictions are no longer finite"
        config = self._config
        classes, before = found.num_effective_classes, self.source.num_effective_classes
        left = diversity_left(classes, before, config.min_entropy)
        reference = self.source if config.keep == "last" else self.best  # the last is the best then
        if found.score < reference.score and left < config.min_diversity:
            return (
                f"the predictions have collapsed to {classes:.1f} effective classes of {before:.1f}"
            )
        return ""

    def load_best(self, model: nn.Module) -> None:
        """Load the best model's weights; the source model's when nothing was better."""
        model.load_state_dict(self._weights)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        best = self.best
        return {
            "weights": self._weights,
            "best_step": self.best_step,
            "best": (best.score, best.accuracy, best.class_shares, best.confidence),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned."""
        self._weights, self.best_step = state["weights"], state["best_step"]
        self.best = CheckpointScore(*state["best"])


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: copy.deepcopy(tensor.detach()) for name, tensor in model.state_dict().items()}
