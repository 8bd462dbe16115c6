"""Find, without labels, how much of the target the BatchNorm statistics should have.

The expected score of a share takes a truth that is drawn half from what the network predicts with
it, since a network that was not trained on the target is more confident where it is accurate
(average confidence estimates accuracy: Guillory et al., ICCV 2021). But with too many of a small
target's statistics it is confident and wrong; it errs elsewhere when the image is mirrored, so half
of the truth is what it predicts for the mirror image. Other shares would not do: those in the
middle agree best with all, and are often not the best.

Shares are few but each is predicted twice, so all of them see a quarter of the images and the two
best the others (successive halving: Jamieson and Talwalkar, AISTATS 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sfda_edge.errors import RunError
from sfda_edge.selection.config import SelectionConfig
from sfda_edge.selection.expected_score import ExpectedScore, expected_score
from sfda_edge.selection.probe import Predictions, Probe, ranked_views, summed_views
from sfda_edge.selection.test_time_ensemble import View


@dataclass(frozen=True, eq=False, kw_only=True)
class ComparedShares:
    """Which share of target statistics is the best.

    Attributes:
        best: the view at the input size with this share.
        found: what is predicted in it.
        scores: of every share; those given up early have theirs from the first images only.
    """

    best: View
    found: Predictions
    scores: dict[View, ExpectedScore]


def compare_shares(first: Probe, rest: Probe, shares: Sequence[float]) -> ComparedShares:
    """Compare shares of target statistics at the input size.

    Args:
        first: images that are seen with every share.
        rest: images that are seen with the best of them.
        shares: each in [0, 1].

    Raises:
        RunError: the network's predictions are not finite.
    """
    config = first.task.selection
    seen = first.predictions([View(first.task.spec.input_hw, share) for share in shares])
    early = share_scores(_finite(seen), config)
    ranked, count = ranked_views(early, config.share_accuracy_slack), config.share_finalists
    others: dict[View, Predictions] = {}
    while ranked and not others:  # again only where no finalist is finite on the other images
        finalists, ranked = ranked[:count], ranked[count:]
        early = {view: score for view, score in early.items() if view not in finalists}
        others = rest.predictions(finalists)
    found = {
        view: Predictions(*map(torch.cat, zip(seen[view], other, strict=True)))
        for view, other in _finite(others).items()
    }
    final = share_scores(found, config)
    best = ranked_views(final, config.share_accuracy_slack)[0]
    return ComparedShares(best=best, found=found[best], scores=early | final)


def _finite(found: dict[View, Predictions]) -> dict[View, Predictions]:
    """What is predicted in the views that were not left out.

    Raises:
        RunError: all were.
    """
    if not found:
        raise RunError(
            "the source model's predictions on the target are NaN or infinite; check its weights, "
            "and try --precision fp32"
        )
    return found


def share_scores(
    found: dict[View, Predictions], config: SelectionConfig
) -> dict[View, ExpectedScore]:
    """The expected score of each view by its probabilities of the image and of its mirror image.

    Args:
        found: what is predicted in each view.
        config: what is too rare to count.
    """
    _, counted = summed_views(found, config)
    return {
        view: expected_score(seen.labels, (seen.plain.float() + seen.mirrored) / 2, counted)
        for view, seen in found.items()
    }
