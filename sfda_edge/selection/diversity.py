"""Diversity: how many classes predictions hold, and whether they have lost most of them.

People read the effective number of classes, exp(entropy of the class shares). Losses are measured
by the entropy itself: of two classes, one alone is still half the number, but none of the entropy.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def effective_classes(shares: Tensor) -> float:
    """exp(entropy) of class shares (C,): C when all are equal, 1 for a single class, 0 for NaN."""
    if not shares.isfinite().all():
        return 0.0
    present = shares[shares > 0]
    return float(torch.exp(-(present * present.log()).sum()))


def diversity_left(classes: float, before: float, min_entropy: float) -> float:
    """The share of the class entropy of ``before`` that ``classes`` effective classes still have.

    Args:
        classes: effective number of classes; 0 for predictions that are not finite.
        before: the number to compare with.
        min_entropy: in nats; ``before`` with less has none to lose.

    Returns:
        0 where predictions are not finite, 1 where ``before`` had no entropy to lose.
    """
    entropy, entropy_before = (math.log(max(number, 1.0)) for number in (classes, before))
    if classes < 1 or entropy_before < min_entropy:
        return float(classes >= 1)
    return entropy / entropy_before
