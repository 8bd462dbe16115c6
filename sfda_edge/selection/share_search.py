"""Find, without labels, how much of the target the BatchNorm statistics should have.

The expected score of a share takes a truth that is drawn half from what the network predicts with
it, and half from what it predicts for the mirror image: with too many of a small target's
statistics a network is confident and wrong, but errs elsewhere when the image is mirrored. Other
shares would not do as the second half: those in the middle agree best with all, and are often not
the best.

Shares are few but each is predicted twice, so all of them see a quarter of the images and the two
best the others (successive halving: Jamieson and Talwalkar, AISTATS 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sfda_edge.errors import RunError
from sfda_edge.selection.config import SelectionConfig
from sfda_edge.selection.expected_score import ExpectedScore, expected_score
from sfda_edge.selection.probe import Probe, ranked_views, summed_views
from sfda_edge.selection.test_time_ensemble import View, plain


@dataclass(frozen=True, eq=False, kw_only=True)
class ComparedShares:
    """Which share of target statistics is the best.

    Attributes:
        best: the view at the input size with this share.
        scores: of every share, of those that were given up early from a quarter of the images.
        found: class probabilities in the best view, (N, C, h, w).
        mirrored: the same of the mirror image, mirrored back.
    """

    best: View
    scores: dict[View, ExpectedScore]
    found: Tensor
    mirrored: Tensor


def compare_shares(probe: Probe, shares: Sequence[float]) -> ComparedShares:
    """Compare shares of target statistics at the input size.

    Args:
        probe: its first quarter of images is seen with every share.
        shares: each in [0, 1].

    Raises:
        RunError: the network's predictions are not finite.
    """
    config, quarter = probe.task.selection, -(-len(probe.images) // 4)
    views = [View(probe.task.spec.input_hw, share) for share in shares]
    first = _with_mirror(probe.of(probe.images[:quarter]), views)
    early = share_scores(*first, config)
    finalists = ranked_views(early, config.share_accuracy_slack)[: config.share_finalists]
    rest = _with_mirror(probe.of(probe.images[quarter:]), finalists)
    found, mirrored = (
        {view: torch.cat([before[view], seen]) for view, seen in after.items()}
        for before, after in zip(first, rest, strict=True)
    )
    final = share_scores(found, mirrored, config)
    best = ranked_views(final, config.share_accuracy_slack)[0]
    return ComparedShares(
        best=best, scores=early | final, found=found[best], mirrored=mirrored[_mirror(best)]
    )


def _with_mirror(
    probe: Probe, views: Sequence[View]
) -> tuple[dict[View, Tensor], dict[View, Tensor]]:
    """Class probabilities in each view, and of the mirror image.

    Raises:
        RunError: none of them is finite.
    """
    found = probe.probabilities_of(views)
    mirrored = probe.probabilities_of([_mirror(view) for view in found])
    if not mirrored:
        raise RunError(
            "the source model's predictions on the target are NaN or infinite; check its weights, "
            "and try --precision fp32"
        )
    return found, mirrored


def _mirror(view: View) -> View:
    return replace(view, mirrored=True)


def share_scores(
    found: dict[View, Tensor], mirrored: dict[View, Tensor], config: SelectionConfig
) -> dict[View, ExpectedScore]:
    """The expected score of each view by its probabilities of the image and of its mirror image.

    Args:
        found: class probabilities in each view, (N, C, h, w).
        mirrored: the same of the mirror image, mirrored back; views without one get no score.
        config: what is too rare to count.
    """
    _, counted = summed_views(found, config)
    scores = {}
    for other, probabilities in mirrored.items():
        own = found[plain(other)]
        truth = (own.float() + probabilities.float()) / 2
        scores[plain(other)] = expected_score(own.max(1).indices, truth, counted)
    return scores
