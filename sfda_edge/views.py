"""Find out, without labels, in which ways a network sees a target well.

A network may see more of the target at another resolution than the device can afford, or with more
or less of the target in its BatchNorm statistics; which, differs from target to target. Every way
of looking is a *view*. Views that see well agree with each other, and those that see badly err in
ways of their own: the agreement of a view with the mean of all others ranks them (measured in
``benchmarks/results/README.md``).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sfda_edge.batchnorm import batchnorm_layers
from sfda_edge.task import AdaptationTask
from sfda_edge.teacher import Teacher, View, unmirrored, view_size

logger = logging.getLogger(__name__)
PROBE_IMAGES, PROBE_BATCH = 16, 4
SHARES = (0.0, 0.3, 0.6, 1.0)
SCALES = (1.0, 1.25, 1.5, 2.0)
# Two views are kept, one of them in the mirror: a third costs as much again and adds little. The
# second is the best once more when no other agrees at least this share of what the best one does.
KEPT_ABOVE = 0.9
# A class in a smaller share of the pixels is too rare for its IoU to say anything.
RARE_SHARE = 5e-4


@dataclass(frozen=True, eq=False)
class Views:
    """What was found.

    Attributes:
        kept: the two views that see the target best together; the second is mirrored.
        by_share: agreement of each share at the input size with the mean of the other shares.
        by_size: agreement of each size, at the best share, with the mean of the other sizes.
        consensus: class probabilities (N, C, h, w) of the probe images, mean of the kept views.
        probe: the probe images' numbers.
    """

    kept: tuple[View, ...]
    by_share: dict[View, float]
    by_size: dict[View, float]
    consensus: Tensor
    probe: tuple[int, ...]

    def text(self) -> str:
        """The kept views in a line."""
        return ", ".join(
            f"{view.size_hw[1]}x{view.size_hw[0]}{' mirrored' * view.mirrored} with "
            f"{view.target_share:.1f} of its statistics "
            f"(agreement {self.by_size[unmirrored(view)]:.2f})"
            for view in self.kept
        )


def expected_miou(labels: Tensor, consensus: Tensor) -> float:
    """The mean IoU to expect of label maps if the truth were drawn from the consensus.

    With q the consensus and ŷ the labels, a class's IoU is Σ q_c [ŷ = c] over
    Σ q_c + Σ [ŷ = c] − Σ q_c [ŷ = c]. Where the consensus is unsure between two classes, either
    answer is worth its probability: a model that sees a rare class a little more often than the
    consensus' first choice does is not punished for that.

    Args:
        labels: (N, H, W) int64.
        consensus: (N, C, H, W) class probabilities; a class with less than ``RARE_SHARE`` of them
            does not count.
    """
    num_classes = consensus.shape[1]
    in_truth = consensus.sum((0, 2, 3), dtype=torch.float64)
    answered = torch.bincount(labels.flatten(), minlength=num_classes).double()
    worth = consensus.gather(1, labels[:, None]).flatten().double()
    both = torch.zeros_like(in_truth).scatter_add_(0, labels.flatten(), worth)
    ious = both / (in_truth + answered - both).clamp_min(1e-9)
    return float(ious[in_truth > RARE_SHARE * in_truth.sum()].mean())


def find_views(task: AdaptationTask) -> Views:
    """Try shares of the target's statistics at the input size, then resolutions with the best."""
    probe = tuple(task.target.spread(PROBE_IMAGES))
    shares = SHARES if batchnorm_layers(task.model) else (0.0,)
    at_input_size = [View(task.spec.input_hw, share) for share in shares]
    seen = _seen(task, at_input_size, probe)
    by_share = _agreements(seen)
    best = max(at_input_size, key=lambda view: by_share[view])
    sizes = dict.fromkeys(view_size(task, scale) for scale in SCALES)
    others = [View(hw, best.target_share) for hw in sizes if hw != best.size_hw]
    seen = {best: seen[best], **_seen(task, others, probe)}
    by_size = _agreements(seen)
    ranked = sorted(by_size, key=lambda view: -by_size[view])
    near = [view for view in ranked[1:] if by_size[view] >= KEPT_ABOVE * by_size[ranked[0]]]
    second = replace(near[0] if near else ranked[0], mirrored=True)
    together = torch.stack([seen[ranked[0]], _probabilities(task, second, probe)])
    return Views((ranked[0], second), by_share, by_size, together.float().mean(0), probe)


def _seen(task: AdaptationTask, views: Sequence[View], probe: Sequence[int]) -> dict[View, Tensor]:
    """Class probabilities (N, C, h, w) of the probe images in each view, in half precision."""
    bar = task.bars("look at the target in several ways", len(views))
    seen = {}
    for view in bar(views):
        try:
            seen[view] = _probabilities(task, view, probe)
        except (RuntimeError, ValueError) as error:
            if view.size_hw == task.spec.input_hw:
                raise
            reason = str(error).partition("\n")[0]
            logger.warning("%dx%d cannot be looked at: %s", *view.size_hw[::-1], reason)
    return seen


def _probabilities(task: AdaptationTask, view: View, probe: Sequence[int]) -> Tensor:
    teacher = Teacher(task, task.model, [view])
    batches = [
        teacher.probabilities(probe[start : start + PROBE_BATCH], task.half_hw).half()
        for start in range(0, len(probe), PROBE_BATCH)
    ]
    return torch.cat(batches)


def _agreements(seen: dict[View, Tensor]) -> dict[View, float]:
    """Each view's agreement with the mean of the others; a lone view agrees with itself."""
    total = torch.stack(list(seen.values())).float().sum(0)
    answers = {}
    for view, probabilities in seen.items():
        others = total - probabilities.float() if len(seen) > 1 else total
        others = others / others.sum(1, keepdim=True)
        answers[view] = expected_miou(probabilities.max(1).indices, others)
    return answers
