"""What SFDA's parts do, as arrays to draw: generated images, attention, easy and hard patches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sfda_edge.methods.illustrations import HeatMaps, LabelledImages, PatchGrid
from sfda_edge.methods.sfda.patches import easy_and_hard


def generated_images(fakes: Tensor, probabilities: Tensor) -> LabelledImages:
    """Generated images (N, 3, H, W) in [0, 255], and the source's (N, C, H, W) for them."""
    return LabelledImages(
        title="Generated images",
        text="Noise made into images with the BatchNorm statistics that the source model stores; "
        "below, the source model's predictions. They need not look like streets.",
        images=_as_pictures(fakes),
        label_maps=probabilities.max(1).indices.to(torch.uint8).cpu().numpy(),
    )


def attention_maps(images: Tensor, maps: Tensor, features_hw: Sequence[int]) -> HeatMaps:
    """How similar each position is to a marked one: a row of the spatial attention map (E5).

    Args:
        images: (N, 3, H, W) uint8.
        maps: (N, M, M) of the student on these images.
        features_hw: M as height and width.
    """
    height, width = features_hw
    row, column = height * 3 // 4, width // 2  # the road ahead, with most cameras
    values = maps[:, row * width + column].view(-1, height, width)
    return HeatMaps(
        title="Attention",
        text="How similar each position is to the marked one, by the student's deepest features.",
        images=_as_pictures(images),
        values=values.float().cpu().numpy(),
        marked=(row, column),
    )


def patch_grid(images: Tensor, entropies: Tensor, per_side: int) -> PatchGrid:
    """The patches of a batch: 1 where easy, 2 where hard (E13).

    Args:
        images: (N, 3, H, W) uint8.
        entropies: (N, K²) of these images.
        per_side: K.
    """
    easy, hard = easy_and_hard(entropies)
    positions = torch.arange(entropies.shape[1], device=easy.device)
    kinds = torch.zeros_like(entropies, dtype=torch.long)
    kinds[easy, positions], kinds[hard, positions] = 1, 2
    return PatchGrid(
        title="Patches",
        text="At every position the half of the batch with the lowest entropy is easy (green), the "
        "other half hard (red); of an odd number the middle one is neither.",
        images=_as_pictures(images),
        kinds=kinds.view(-1, per_side, per_side).cpu().numpy(),
    )


def _as_pictures(images: Tensor) -> np.ndarray:
    """(N, 3, H, W) in [0, 255] → (N, H, W, 3) uint8."""
    levels = images.permute(0, 2, 3, 1).round().to(torch.uint8).cpu().numpy()
    return np.ascontiguousarray(levels)
