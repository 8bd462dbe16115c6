"""ExpectedScore: mIoU and accuracy to expect of label maps, when the truth is only probable."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sfda_edge.runs.distributed import reduced


class ExpectedScore(NamedTuple):
    """A label-free estimate.

    Attributes:
        miou: mean over classes, in [0, 1].
        accuracy: share of correct pixels, in [0, 1].
    """

    miou: float
    accuracy: float


def expected_score(labels: Tensor, truth: Tensor, counted: Tensor) -> ExpectedScore:
    """The score to expect of label maps if the truth were drawn from probabilities.

    With q the probabilities and ŷ the labels, a class's IoU is Σ q_c [ŷ = c] over
    Σ q_c + Σ [ŷ = c] − Σ q_c [ŷ = c]. Where two classes are equally likely, either label is worth
    its probability, so that predicting a rare class slightly more often costs nothing.

    Args:
        labels: (N, H, W) int64, this process's share; the score is over all processes.
        truth: (N, C, H, W) class probabilities.
        counted: classes whose IoU counts, (C,) bool.
    """
    num_classes = truth.shape[1]
    in_truth = truth.sum((0, 2, 3), dtype=torch.float64)
    predicted = torch.bincount(labels.flatten(), minlength=num_classes).double()
    worth = truth.gather(1, labels[:, None]).flatten().double()
    both = torch.zeros_like(in_truth).scatter_add_(0, labels.flatten(), worth)
    pixels = torch.tensor([worth.sum(), worth.numel()], dtype=torch.float64)
    in_truth, predicted, both, pixels = reduced(in_truth, predicted, both, pixels)
    ious = both / (in_truth + predicted - both).clamp_min(1e-9)
    return ExpectedScore(float(ious[counted].mean()), float(pixels[0] / pixels[1]))


def frequent_classes(probabilities: Tensor, min_share: float) -> Tensor:
    """Which classes have more than ``min_share`` of the pixels of (N, C, H, W): (C,) bool."""
    (pixels,) = reduced(probabilities.sum((0, 2, 3), dtype=torch.float64))
    return pixels > min_share * pixels.sum()


def class_shares(labels: Tensor, num_classes: int) -> Tensor:
    """Share of the pixels of each class over all processes' label maps, (C,) float64."""
    (counts,) = reduced(torch.bincount(labels.flatten(), minlength=num_classes).double())
    return counts / counts.sum()
