"""Diversity: how many classes answers hold, and whether they have lost most of them.

The effective number of classes, exp(entropy of the class shares), is what people read. What is left
of it is measured by the entropies themselves: of two classes, one alone is still half the number,
but none of the entropy.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Less than this, a second class in 1 of 1000 pixels, is no diversity that could be lost.
_LEAST_ENTROPY = 0.008


def effective_classes(shares: Tensor) -> float:
    """exp(entropy) of class shares (C,): C when all are equal, 1 when there is one; NaN gives 0."""
    if not shares.isfinite().all():
        return 0.0
    present = shares[shares > 0]
    return float(torch.exp(-(present * present.log()).sum()))


def diversity_left(classes: float, before: float) -> float:
    """What ``classes`` effective classes keep of the entropy of ``before``; 1 where that had none.

    Answers that are no numbers, 0 classes, keep nothing.
    """
    entropy, entropy_before = (math.log(max(number, 1.0)) for number in (classes, before))
    if classes < 1 or entropy_before < _LEAST_ENTROPY:
        return float(classes >= 1)
    return entropy / entropy_before
