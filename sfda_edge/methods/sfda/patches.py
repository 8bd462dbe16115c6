"""Patches of prediction maps, split into easy and hard ones (E12, E13)."""

from __future__ import annotations

import torch
from torch import Tensor

from sfda_edge.training.losses import conditional, entropy_map


def split_patches(maps: Tensor, per_side: int) -> Tensor:
    """(N, C, H, W) → (N, K², C, H/K, W/K), row by row; a remainder at the far edges is left out."""
    height, width = (side // per_side for side in maps.shape[-2:])
    cut = maps[..., : height * per_side, : width * per_side]
    cut = cut.unflatten(3, (per_side, width)).unflatten(2, (per_side, height))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def patch_entropy(probabilities: Tensor, per_side: int) -> Tensor:
    """Mean entropy of each patch (E12): (N, C, H, W) → (N, K²)."""
    entropies = entropy_map(conditional(probabilities))
    return split_patches(entropies[:, None], per_side).mean((2, 3, 4))


def easy_and_hard(entropies: Tensor) -> tuple[Tensor, Tensor]:
    """The split of E13: at every position, which images' patches are easy and which are hard.

    Args:
        entropies: (N, K²); of an odd N the middle patch is left out.

    Returns:
        image numbers, each (N // 2, K²), lowest entropy first.
    """
    order = entropies.argsort(dim=0, stable=True)
    half = len(entropies) // 2
    return order[:half], order[len(order) - half :]


def chosen(patches: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Gather patches (N, K², C, h, w) by image numbers (M, K²).

    Returns:
        the patches (M·K², C, h, w) and their positions (M·K²,).
    """
    positions = torch.arange(images.shape[1], device=images.device).expand_as(images)
    return patches[images, positions].flatten(0, 1), positions.flatten()


def weighted_self_information(probabilities: Tensor) -> Tensor:
    """−p log p / log C (N, C, H, W): what ADVENT and IntraDA show their discriminators."""
    log_classes = torch.log(torch.tensor(float(probabilities.shape[1])))
    given = conditional(probabilities).clamp_min(1e-12)
    return torch.special.entr(given) / log_classes.to(probabilities.device)
