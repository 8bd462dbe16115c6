"""The losses of SFDA and of its controls; (E…) are the paper's equations as in ``methods/sfda``.

Every loss is this process's part of the global one (see ``distributed.mean_over``).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sfda_edge.batchnorm.layers import Layers, running_statistics
from sfda_edge.runs.distributed import mean_over


def max_square(probabilities: Tensor) -> Tensor:
    """−(1/HW) Σ_hw Σ_c p², mean over the batch (E1; Chen et al., ICCV 2019).

    Args:
        probabilities: (N, C, H, W).
    """
    squares = probabilities.square().sum(1)
    return -mean_over(squares, torch.ones_like(squares))


def image_wise_max_square(probabilities: Tensor, ratio: float = 0.2) -> Tensor:
    """MaxSquare in which a class weighs 1 / (pixels of it in the image)^ratio (Chen et al., eq. 8).

    The weights count the image's own predicted labels: frequent classes no longer win by their
    size. They are scaled to mean 1 over the image, so that the loss keeps the size of
    ``max_square``.
    """
    labels = probabilities.detach().max(1).indices.flatten(1)
    counts = torch.stack([row.bincount(minlength=probabilities.shape[1]) for row in labels])
    weights = counts.clamp_min(1).float().pow(-ratio).gather(1, labels)
    weights = weights / weights.mean(1, keepdim=True)
    squares = probabilities.square().sum(1).flatten(1)
    return -mean_over(squares * weights, torch.ones_like(squares))


def conditional(probabilities: Tensor) -> Tensor:
    """(N, C, H, W) → the same, given that a pixel is of one of the classes: they sum to 1.

    A class map may drop an output of the network. Without this an entropy would be lowest where
    all is in the dropped one.
    """
    return probabilities / probabilities.sum(1, keepdim=True).clamp_min(1e-12)


def entropy_map(probabilities: Tensor) -> Tensor:
    """−Σ_c p log p of every pixel: (N, C, H, W) → (N, H, W), in nats."""
    # At p = 0 the slope is infinite, and softmax's 0 times it no number.
    return torch.special.entr(probabilities.clamp_min(1e-12)).sum(1)


def mean_absolute(first: Tensor, second: Tensor) -> Tensor:
    """Mean absolute difference of all elements: E4 on outputs and E8 on attention."""
    difference = (first - second).abs()
    return mean_over(difference, torch.ones_like(difference))


def batchnorm_statistics_loss(
    moments: Mapping[str, tuple[Tensor, Tensor]], layers: Layers
) -> Tensor:
    """Σ_l ‖μ_l − μ̄_l‖² + ‖σ_l² − σ̄_l²‖² (E3): how far a fake batch is from the source's statistics.

    Args:
        moments: mean and variance of every layer's input, each (C,), by the layer's name.
        layers: the frozen source model's.
    """
    distances = []
    for name, (mean, variance) in moments.items():
        source_mean, source_variance = running_statistics(layers[name])
        distances.append((mean - source_mean).square().sum())
        distances.append((variance - source_variance).square().sum())
    return torch.stack(distances).sum()


def attention_divergence(teacher_map: Tensor, target_map: Tensor) -> Tensor:
    """KL(teacher ‖ target) of attention maps (N, M, M), mean over images and rows (in E9)."""
    log_ratio = teacher_map.clamp_min(1e-12).log() - target_map.clamp_min(1e-12).log()
    divergence = (teacher_map * log_ratio).sum(-1)
    return mean_over(divergence, torch.ones_like(divergence))


def soft_cross_entropy(probabilities: Tensor, soft_labels: Tensor, weights: Tensor) -> Tensor:
    """−Σ_c w_c q_c log p_c with soft labels q, mean over the labelled pixels.

    Args:
        probabilities: (N, C, H, W).
        soft_labels: (N, C, H, W); all 0 in a pixel without a label.
        weights: (C,).
    """
    log_probabilities = probabilities.clamp_min(1e-6).log()
    losses = -(soft_labels * log_probabilities * weights.view(1, -1, 1, 1)).sum(1)
    return mean_over(losses, (soft_labels.sum(1) > 0).float())


def masked_cross_entropy(probabilities: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """−log p of the label, weighted mean over pixels.

    Args:
        probabilities: (N, C, H, W).
        labels: (N, H, W) int64 in [0, C); anything where the weight is 0.
        weights: (N, H, W), at least 0.
    """
    likelihoods = probabilities.gather(1, labels[:, None])[:, 0]
    return mean_over(-likelihoods.clamp_min(1e-6).log(), weights)
