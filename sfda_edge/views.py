"""Find out, without labels, in which ways a network sees a target well.

A network may see more of the target at another resolution than the device can afford, or with more
or less of the target in its BatchNorm statistics; which, differs from target to target. Every way
of looking is a *view*. Views that see well agree with each other, and those that see badly err in
ways of their own: the agreement of a view with the mean of all others ranks them (measured in
``benchmarks/results/README.md``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfda_edge.batchnorm import batchnorm_layers
from sfda_edge.task import AdaptationTask
from sfda_edge.teacher import Teacher, View, view_size

PROBE_IMAGES, PROBE_BATCH = 24, 4
SHARES = (0.0, 0.3, 0.6, 1.0)
SCALES = (1.0, 1.25, 1.5, 2.0)
# A view is left out when it agrees with the others less than this share of the best one's.
KEPT_ABOVE = 0.9
# A class in a smaller share of the pixels is too rare for its IoU to say anything.
RARE_SHARE = 5e-4


@dataclass(frozen=True, eq=False)
class Views:
    """What was found.

    Attributes:
        kept: the views that see the target well, best first.
        agreement: of every view that was tried with the mean of the others it was tried with.
        consensus: label maps (N, h, w) of the probe images by the kept views together.
        probe: the probe images' numbers.
    """

    kept: tuple[View, ...]
    agreement: dict[View, float]
    consensus: Tensor
    probe: tuple[int, ...]

    def text(self) -> str:
        """The kept views in a line."""
        return ", ".join(
            f"{view.size_hw[1]}x{view.size_hw[0]} with {view.target_share:.1f} of its statistics "
            f"(agreement {self.agreement[view]:.2f})"
            for view in self.kept
        )


def agreement(labels: Tensor, reference: Tensor, num_classes: int) -> float:
    """Mean IoU of label maps with reference label maps, over the reference's classes.

    Args:
        labels: (N, H, W) int64.
        reference: (N, H, W) int64.
        num_classes: classes that are rarer than ``RARE_SHARE`` in the reference do not count.
    """
    pairs = torch.bincount(
        (reference * num_classes + labels).flatten(), minlength=num_classes**2
    ).view(num_classes, num_classes)
    pairs = pairs.double()
    both, of_reference = pairs.diag(), pairs.sum(1)
    union = of_reference + pairs.sum(0) - both
    counted = of_reference > RARE_SHARE * pairs.sum()
    return float((both / union.clamp_min(1))[counted].mean())


def probe_hw(task: AdaptationTask) -> tuple[int, int]:
    """The size at which views are compared: half the input's."""
    height, width = task.spec.input_hw
    return max(1, height // 2), max(1, width // 2)


def find_views(task: AdaptationTask) -> Views:
    """Try shares of the target's statistics at the input size, then resolutions with the best."""
    probe = tuple(task.target.spread(PROBE_IMAGES))
    shares = SHARES if batchnorm_layers(task.model) else (0.0,)
    at_input_size = [View(task.spec.input_hw, share) for share in shares]
    agreements = _agreements(task, _seen(task, at_input_size, probe))
    share = max(at_input_size, key=lambda view: agreements[view]).target_share
    sizes = dict.fromkeys(view_size(task, scale) for scale in SCALES)
    seen = _seen(task, [View(size_hw, share) for size_hw in sizes], probe)
    by_size = _agreements(task, seen)
    ranked = sorted(by_size, key=lambda view: -by_size[view])
    kept = tuple(view for view in ranked if by_size[view] >= KEPT_ABOVE * by_size[ranked[0]])
    mean = torch.stack([seen[view] for view in kept]).mean(0)
    return Views(kept, agreements | by_size, mean.max(1).indices, probe)


def _seen(task: AdaptationTask, views: Sequence[View], probe: Sequence[int]) -> dict[View, Tensor]:
    """Class probabilities (N, C, h, w) of the probe images in each view, in half precision."""
    bar = task.bars("look at the target in several ways", len(views))
    return {view: _probabilities(task, view, probe) for view in bar(views)}


def _probabilities(task: AdaptationTask, view: View, probe: Sequence[int]) -> Tensor:
    teacher = Teacher(task, task.model, [view], flip=False)
    batches = [
        teacher.probabilities(probe[start : start + PROBE_BATCH], probe_hw(task)).half()
        for start in range(0, len(probe), PROBE_BATCH)
    ]
    return torch.cat(batches)


def _agreements(task: AdaptationTask, seen: dict[View, Tensor]) -> dict[View, float]:
    """Each view's agreement with the mean of the others; a lone view agrees with itself."""
    total = torch.stack(list(seen.values())).float().sum(0)
    answers = {}
    for view, probabilities in seen.items():
        others = total - probabilities.float() if len(seen) > 1 else total
        answers[view] = agreement(
            probabilities.max(1).indices, others.max(1).indices, task.num_classes
        )
    return answers
