"""Find, without labels, the input sizes and BatchNorm statistics at which a network is accurate.

A network is often more accurate on a target at another resolution than the device can afford, or
with some of the target in its BatchNorm statistics; which, differs from target to target. Each
combination is a *view*. The expected score of a size takes a truth that is drawn half from the mean
of all other sizes: accurate views agree with one another, inaccurate ones err in different places.
But that alone favours the sizes in the middle, so half is what the view predicts for the mirror
image. Its confidence in its own prediction has no part in it, unless there is a single size: small
images made a network confident and wrong. How shares of the target's statistics are scored:
``share_search.py``.

The mean over classes fails on a target that shows little but road: views that find five classes
there have a higher expected mIoU than the one that finds road. So views whose expected *accuracy*
is clearly below another's are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sfda_edge.batchnorm.layers import batchnorm_layers
from sfda_edge.runs.distributed import local_share, reduced
from sfda_edge.selection.config import SelectionConfig
from sfda_edge.selection.expected_score import ExpectedScore, expected_score
from sfda_edge.selection.probe import Predictions, Probe, ranked_views, summed_views
from sfda_edge.selection.share_search import compare_shares
from sfda_edge.selection.test_time_ensemble import SizeStatistics, View, plain, view_sizes
from sfda_edge.task import AdaptationTask


@dataclass(frozen=True, eq=False, kw_only=True)
class SelectedViews:
    """The result of the search.

    Attributes:
        kept: the two views of the ensemble; the second is mirrored.
        by_share: expected score of each share of target statistics, at the input size.
        by_size: expected score of each size, at the best share.
        consensus: mean class probabilities of the kept views on the probe images, (N, C, h, w).
        agreement: of the kept views' label maps there on each class, (C,), see ``class_agreement``.
        probe: the probe images' indices; of several processes each has its share.
        statistics: of the target at each size.
    """

    kept: tuple[View, ...]
    by_share: dict[View, ExpectedScore]
    by_size: dict[View, ExpectedScore]
    consensus: Tensor
    agreement: Tensor
    probe: tuple[int, ...]
    statistics: SizeStatistics = field(default_factory=dict)

    def text(self) -> str:
        """The kept views in a line."""
        return ", ".join(
            f"{view.size_hw[1]}x{view.size_hw[0]}{' mirrored' * view.mirrored}, "
            f"{view.target_share:.1f} target statistics "
            f"(expected mIoU {self.by_size[plain(view)].miou:.2f})"
            for view in self.kept
        )


def search_views(
    task: AdaptationTask,
    *,
    compare_sizes: bool = True,
    statistics: SizeStatistics | None = None,
) -> SelectedViews:
    """Compare shares of target statistics at the input size, then sizes with the best share.

    Args:
        task: before training: its model is the source.
        compare_sizes: other input sizes, too; larger ones take most of the time.
        statistics: of the target, at the sizes at which they have been observed.

    Raises:
        RunError: the network's predictions are not finite at the input size.
    """
    config = task.selection
    images = task.target.spread(config.probe_images)
    quarter, rest = (tuple(local_share(part)) for part in _quarter_and_rest(images))
    probe = Probe(task, quarter + rest, statistics or {})
    compared = config.target_shares if batchnorm_layers(task.model) else (0.0,)
    shares = compare_shares(probe.of(quarter), probe.of(rest), compared)
    best = shares.best
    sizes = view_sizes(task, config.scales if compare_sizes else (1.0,))
    others = [View(hw, best.target_share) for hw in sizes if hw != best.size_hw]
    found = {best: shares.found, **probe.predictions(others)}
    by_size = size_scores(found, config)
    ranked = ranked_views(by_size, config.accuracy_slack)
    first, second = ranked[0], _second_view(ranked, by_size, config)
    return SelectedViews(
        kept=(first, replace(second, mirrored=True)),
        by_share=shares.scores,
        by_size=by_size,
        consensus=(found[first].plain.float() + found[second].mirrored) / 2,
        agreement=class_agreement(found[first].plain, found[second].mirrored),
        probe=probe.images,
        statistics=probe.statistics,
    )


def _quarter_and_rest(images: Sequence[int]) -> tuple[list[int], list[int]]:
    """Every fourth image, and the others."""
    return [*images[::4]], [image for place, image in enumerate(images) if place % 4]


def _second_view(
    ranked: Sequence[View], scores: dict[View, ExpectedScore], config: SelectionConfig
) -> View:
    """The next best view where it is nearly as good as the best, else the best again."""
    least = config.second_view_ratio * scores[ranked[0]].miou
    near = [view for view in ranked[1:] if scores[view].miou >= least]
    return near[0] if near else ranked[0]


def class_agreement(first: Tensor, second: Tensor) -> Tensor:
    """IoU of each class between two views' label maps, in [0, 1], (C,) float32; of all processes.

    It is 1 for a class that is in neither.

    Args:
        first: class probabilities, (N, C, h, w).
        second: those of the same images in another view.
    """
    one, other = (found.float().max(1).indices.flatten() for found in (first, second))
    in_one, in_other, in_both = reduced(
        *(
            torch.bincount(labels, minlength=first.shape[1]).double()
            for labels in (one, other, one[one == other])
        )
    )
    in_either = in_one + in_other - in_both
    return torch.where(in_either > 0, in_both / in_either, 1).float()


def size_scores(
    found: dict[View, Predictions], config: SelectionConfig
) -> dict[View, ExpectedScore]:
    """The expected score of each view by the others and by its mirror image.

    Args:
        found: what is predicted in each view; a single one counts as its own other.
        config: what is too rare to count.
    """
    total, counted = summed_views(found, config)
    scores = {}
    for view, seen in found.items():
        own = seen.plain.float()
        others = (total - own) / (len(found) - 1) if len(found) > 1 else own
        scores[view] = expected_score(seen.labels, (others + seen.mirrored) / 2, counted)
    return scores
