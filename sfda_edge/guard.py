"""The guard: scores checkpoints without labels, keeps the best, never returns a worse model.

The score is the agreement of a model's answers with the consensus of the source model's own views
of the target: the mean IoU to expect if the truth were drawn from it (``views.py``). Losing a rare
class costs as much as losing a frequent one, and a collapsing model loses nearly all. The consensus
is fixed before anything is learnt, so that no method can talk it into agreeing. How well the score
ranks models is measured by ``python -m benchmarks.adaptation`` and written down in
``benchmarks/results/README.md``.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sfda_edge.batchnorm import effective_classes
from sfda_edge.task import AdaptationTask
from sfda_edge.views import PROBE_BATCH, Views, expected_miou

# A run has collapsed when its answers hold less than this share of the source's effective classes.
COLLAPSED_BELOW = 0.5


@dataclass(frozen=True)
class Verdict:
    """A model as the guard sees it, without labels.

    Attributes:
        agreement: with the consensus, in [0, 1].
        class_shares: of the pixels, one a class.
        confidence: mean highest probability.
    """

    agreement: float
    class_shares: tuple[float, ...]
    confidence: float

    @property
    def num_effective_classes(self) -> float:
        """exp(entropy of the class shares)."""
        return effective_classes(torch.tensor(self.class_shares, dtype=torch.float64))


class CollapseError(Exception):
    """A run that only makes things worse; the message says how it shows."""


class Guard:
    """Judges models on the probe images and remembers the best one's weights.

    Args:
        task: before anything is learnt: its model is the source.
        views: of the source model.

    Attributes:
        source: the source model's verdict.
        best_step: of the best model so far; None while that is the source.
        best: its verdict.
    """

    def __init__(self, task: AdaptationTask, views: Views) -> None:
        self._task, self._views = task, views
        self.source = self.best = self.judge(task.model)
        self.best_step: int | None = None
        self._weights = _copied(task.model)

    @torch.no_grad()
    def judge(self, model: nn.Module) -> Verdict:
        """Look at the model's answers."""
        task, probe = self._task, self._views.probe
        was_training = model.training
        model.eval()
        labels, confidence = [], []
        for start in range(0, len(probe), PROBE_BATCH):
            images = task.inputs(task.target.images(probe[start : start + PROBE_BATCH]))
            with task.fabric.autocast():
                logits = model(images)
            seen = task.half_size(task.probabilities(logits)).max(1)
            labels.append(seen.indices)
            confidence.append(seen.values.mean())
        model.train(was_training)
        return self._verdict(torch.cat(labels), float(torch.stack(confidence).mean()))

    def _verdict(self, labels: Tensor, confidence: float) -> Verdict:
        num_classes = self._task.num_classes
        counts = torch.bincount(labels.flatten(), minlength=num_classes).double()
        score = expected_miou(labels, self._views.consensus)
        shares = tuple((counts / counts.sum()).tolist())
        return Verdict(score if math.isfinite(confidence) else 0.0, shares, confidence)

    def consider(self, model: nn.Module, step: int) -> Verdict:
        """Judge a checkpoint and keep it when it is the best so far.

        Raises:
            CollapseError: its answers have lost the classes that the source model sees.
        """
        verdict = self.judge(model)
        left, before = verdict.num_effective_classes, self.source.num_effective_classes
        if not math.isfinite(verdict.confidence):
            raise CollapseError("the network's answers are no longer numbers")
        if left < COLLAPSED_BELOW * before:
            raise CollapseError(
                f"the answers have collapsed to {left:.1f} effective classes of {before:.1f}"
            )
        if verdict.agreement > self.best.agreement:
            self.best, self.best_step = verdict, step
            self._weights = _copied(model)
        return verdict

    def give_best(self, model: nn.Module) -> None:
        """Let the model be the best one; the source model when nothing was better."""
        model.load_state_dict(self._weights)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        best = self.best
        return {
            "weights": self._weights,
            "best_step": self.best_step,
            "best": (best.agreement, best.class_shares, best.confidence),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what ``state`` returned."""
        self._weights, self.best_step = state["weights"], state["best_step"]
        self.best = Verdict(*state["best"])


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: copy.deepcopy(tensor.detach()) for name, tensor in model.state_dict().items()}
