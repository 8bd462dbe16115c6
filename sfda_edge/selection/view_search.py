"""Find out, without labels, in which ways a network sees a target well.

A network may see more of the target at another resolution than the device can afford, or with more
or less of the target in its BatchNorm statistics; which, differs from target to target. Every way
of looking is a *view*. A network that was not trained on the target is surer where it sees well
(average confidence as an estimate of accuracy: Guillory et al., ICCV 2021), and views that see well
agree, while those that see badly err in ways of their own. Neither is enough: too much of a small
target's statistics makes sure of nonsense, and views next to each other agree on their common
errors. So a view's *promise* is the mean IoU to expect if the truth were drawn half from its own
probabilities and half from the mean of all other views (``benchmarks/results/adaptation.md`` has
the figures on five tasks). It holds before anything is learnt: a network that learns from its own
answers grows sure of them, right or wrong, so the guard asks learners in another way.

The mean over classes has a blind spot: where a target shows little but road, views that make five
classes of it promise more than the one that sees road, which has nothing to say of the other four.
So a view that expects clearly less *accuracy* than another, by the same truth, is out. And where
answers with replaced statistics agree far less with their mirror image than those with the model's
own, little or none of the target's statistics is used.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from sfda_edge.adaptation.task import AdaptationTask
from sfda_edge.batchnorm.statistics import batchnorm_layers
from sfda_edge.errors import RunError
from sfda_edge.selection.diversity import diversity_left, effective_classes
from sfda_edge.selection.test_time_ensemble import Teacher, View, unmirrored, view_size
from sfda_edge.training.distributed import averaged

logger = logging.getLogger(__name__)
PROBE_IMAGES, PROBE_BATCH = 16, 4
SHARES = (0.0, 0.3, 0.6, 1.0)
# As many smaller as larger sizes, octave by octave: the one in the middle of those that judge it
# agrees with them best, and that has to be the device's own unless another sees better.
SCALES = (0.5, 0.625, 0.75, 1.0, 1.25, 1.5, 2.0)
# Two views are kept, one of them in the mirror: a third costs as much again and adds little. The
# second is the best once more when no other promises at least this share of the best one's.
KEPT_ABOVE = 0.9
# Views that expect less accuracy than the best by more than this are out.
ACCURACY_SLACK = 0.03
# Replaced statistics make nonsense of a target where answers agree with their mirror image in so
# much less of the pixels than with the model's own: 0.09 to 0.28 less on road, sky or the lower
# half of streets alone, at most 0.04 on whole streets (benchmarks/results/adaptation.md). A mix of
# 0.3 does little harm there (3 % of the pixels) and may help much (52 %); but where the model sees
# less than half of the diversity that replaced statistics make of the target, that is made up.
MOST_DISAGREEMENT, LEAST_DIVERSITY, CAUTIOUS_SHARE = 0.08, 0.5, 0.3
# A class in a smaller share of the pixels is too rare for its IoU to say anything.
RARE_SHARE = 5e-4


class Promise(NamedTuple):
    """What to expect of labels, without labels.

    Attributes:
        miou: mean over classes, in [0, 1].
        accuracy: share of the pixels, in [0, 1].
    """

    miou: float
    accuracy: float


@dataclass(frozen=True, eq=False)
class Views:
    """What was found.

    Attributes:
        kept: the two views that see the target best together; the second is mirrored.
        by_share: the promise of each share at the input size.
        by_size: the promise of each size, at the best share.
        consensus: class probabilities (N, C, h, w) of the probe images, mean of the kept views.
        probe: the probe images' numbers.
        trusted_share: the most of the target's statistics that was considered.
    """

    kept: tuple[View, ...]
    by_share: dict[View, Promise]
    by_size: dict[View, Promise]
    consensus: Tensor
    probe: tuple[int, ...]
    trusted_share: float = 1.0

    def text(self) -> str:
        """The kept views in a line."""
        return ", ".join(
            f"{view.size_hw[1]}x{view.size_hw[0]}{' mirrored' * view.mirrored} with "
            f"{view.target_share:.1f} of its statistics "
            f"(promises mIoU {self.by_size[unmirrored(view)].miou:.2f})"
            for view in self.kept
        )


def expected(labels: Tensor, truth: Tensor, counted: Tensor) -> Promise:
    """What to expect of label maps if the truth were drawn from probabilities.

    With q the probabilities and ŷ the labels, a class's IoU is Σ q_c [ŷ = c] over
    Σ q_c + Σ [ŷ = c] − Σ q_c [ŷ = c]. Where the truth is unsure between two classes, either answer
    is worth its probability: a model that sees a rare class a little more often than the most
    likely truth does is not punished for that.

    Args:
        labels: (N, H, W) int64.
        truth: (N, C, H, W) class probabilities.
        counted: classes whose IoU counts, (C,) bool.
    """
    num_classes = truth.shape[1]
    in_truth = truth.sum((0, 2, 3), dtype=torch.float64)
    answered = torch.bincount(labels.flatten(), minlength=num_classes).double()
    worth = truth.gather(1, labels[:, None]).flatten().double()
    both = torch.zeros_like(in_truth).scatter_add_(0, labels.flatten(), worth)
    ious = both / (in_truth + answered - both).clamp_min(1e-9)
    return Promise(float(ious[counted].mean()), float(worth.mean()))


def frequent_classes(probabilities: Tensor) -> Tensor:
    """Which classes are not too rare in (N, C, H, W) for their IoU to say anything: (C,) bool."""
    pixels = probabilities.sum((0, 2, 3), dtype=torch.float64)
    return pixels > RARE_SHARE * pixels.sum()


def find_views(task: AdaptationTask) -> Views:
    """Try shares of the target's statistics at the input size, then resolutions with the best.

    Raises:
        RunError: the network's answers are not numbers, however it looks.
    """
    probe = tuple(task.target.spread(PROBE_IMAGES))
    shares = SHARES if batchnorm_layers(task.model) else (0.0,)
    at_input_size = [View(task.spec.input_hw, share) for share in shares]
    seen = _seen(task, at_input_size, probe)
    if not seen:
        raise RunError(
            "the source model's answers on the target are not numbers; check its weights, and try "
            "--precision fp32"
        )
    by_share = _promises(seen)
    most = trusted_share(task, seen, probe)
    best = ranked_views({v: p for v, p in by_share.items() if v.target_share <= most})[0]
    sizes = dict.fromkeys(view_size(task, scale) for scale in SCALES)
    others = [View(hw, best.target_share) for hw in sizes if hw != best.size_hw]
    seen = {best: seen[best], **_seen(task, others, probe)}
    by_size = _promises(seen)
    ranked = ranked_views(by_size)
    least = KEPT_ABOVE * by_size[ranked[0]].miou
    near = [view for view in ranked[1:] if by_size[view].miou >= least]
    second = replace(near[0] if near else ranked[0], mirrored=True)
    together = torch.stack([seen[ranked[0]], _probabilities(task, second, probe)])
    consensus = together.float().mean(0)
    return Views((ranked[0], second), by_share, by_size, consensus, probe, most)


def _seen(task: AdaptationTask, views: Sequence[View], probe: Sequence[int]) -> dict[View, Tensor]:
    """Class probabilities (N, C, h, w) of the probe images in each view, in half precision.

    A view whose answers are not numbers, and a size that the network or the device's memory cannot
    take, in any process, is left out in all.
    """
    bar = task.bars("look at the target in several ways", len(views))
    seen = {}
    for view in bar(views):
        problem = ""
        try:
            seen[view] = _probabilities(task, view, probe)
            if not seen[view].isfinite().all():
                problem = "the network's answers are not numbers"
        except (RuntimeError, ValueError) as error:
            if view.size_hw == task.spec.input_hw:
                raise
            problem = str(error).partition("\n")[0]
        if averaged({"failed": float(bool(problem))})["failed"]:
            seen.pop(view, None)
            height, width = view.size_hw
            logger.warning(
                "left out: %dx%d with %.1f of the target's statistics: %s",
                width,
                height,
                view.target_share,
                problem or "another process failed",
            )
    return seen


def _probabilities(task: AdaptationTask, view: View, probe: Sequence[int]) -> Tensor:
    teacher = Teacher(task, task.model, [view])
    batches = [
        teacher.probabilities(probe[start : start + PROBE_BATCH], task.half_hw).half()
        for start in range(0, len(probe), PROBE_BATCH)
    ]
    return torch.cat(batches)


def trusted_share(task: AdaptationTask, seen: dict[View, Tensor], probe: Sequence[int]) -> float:
    """How much of the target's statistics may be used at the most.

    Args:
        task: the target.
        seen: class probabilities in views of one size, with ever more of the target's statistics.
        probe: the probe images' numbers.
    """
    own, replaced = next(iter(seen)), list(seen)[-1]
    if own == replaced:
        return own.target_share
    found = {}
    for name, view in (("own", own), ("replaced", replaced)):
        labels = seen[view].max(1).indices
        mirrored = _probabilities(task, replace(view, mirrored=True), probe).max(1).indices
        found[f"{name} agreement"] = (labels == mirrored).float().mean().item()
        counts = torch.bincount(labels.flatten(), minlength=task.num_classes).double()
        found[f"{name} classes"] = effective_classes(counts / counts.sum())
    found = averaged(found)  # or processes would choose differently
    if found["replaced agreement"] >= found["own agreement"] - MOST_DISAGREEMENT:
        return replaced.target_share
    few = diversity_left(found["own classes"], found["replaced classes"]) < LEAST_DIVERSITY
    share = own.target_share if few else max(own.target_share, CAUTIOUS_SHARE)
    logger.info(
        "the target's own statistics make nonsense of it (%.0f %% of the labels stay in the "
        "mirror, with the model's %.0f %%): at most %.1f of them is used",
        100 * found["replaced agreement"],
        100 * found["own agreement"],
        share,
    )
    return share


def ranked_views(promises: dict[View, Promise]) -> list[View]:
    """Those that do not expect clearly less accuracy than another, by the mean IoU they promise."""
    least = max(promise.accuracy for promise in promises.values()) - ACCURACY_SLACK
    fit = [view for view, promise in promises.items() if promise.accuracy >= least]
    return sorted(fit, key=lambda view: -promises[view].miou)


def _promises(seen: dict[View, Tensor]) -> dict[View, Promise]:
    """The promise of each view among the others; a lone view has its own word alone.

    Over the classes that all views together see, so that promises compare; and over all processes,
    so that all choose alike.
    """
    total = torch.zeros_like(next(iter(seen.values())), dtype=torch.float32)
    for probabilities in seen.values():
        total += probabilities
    counted = frequent_classes(total)
    found: dict[tuple[View, str], float] = {}
    for view, probabilities in seen.items():
        own = probabilities.float()
        others = (total - own) / (len(seen) - 1) if len(seen) > 1 else own
        promise = expected(own.max(1).indices, (own + others) / 2, counted)
        found[view, "miou"], found[view, "accuracy"] = promise
    found = averaged(found)
    return {view: Promise(found[view, "miou"], found[view, "accuracy"]) for view in seen}
