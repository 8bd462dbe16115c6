"""Dual attention without parameters: which positions, and which channels, look alike (E5 to E7).

DANet's maps (Fu et al., CVPR 2019) without its projections, as SFDA and the same authors' ZAQ use
them. How features are scaled before the softmax, SFDA's text does not say:

- ``unit``, our reading: to unit length, as in ZAQ. The maps are soft; of rectified features no
  position weighs e times as much as another.
- ``root``: products divided by the square root of their number of terms, as Transformers have it.
- ``raw``: E5 and E6 as written. With hundreds of channels a row is all but one-hot.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

AttentionScaling = Literal["unit", "root", "raw"]


def spatial_map(features: Tensor, scaling: AttentionScaling) -> Tensor:
    """(N, C, H, W) → (N, HW, HW): row j says how much each position i looks like j (E5)."""
    return _likeness(features.flatten(2).transpose(1, 2), scaling)


def channel_map(features: Tensor, scaling: AttentionScaling) -> Tensor:
    """(N, C, H, W) → (N, C, C): row j says how much each channel i looks like j (E6)."""
    return _likeness(features.flatten(2), scaling)


def _likeness(vectors: Tensor, scaling: AttentionScaling) -> Tensor:
    """(N, M, D) → (N, M, M): softmax over the products of each vector with all."""
    if scaling == "unit":
        vectors = functional.normalize(vectors, dim=2)
    products = vectors @ vectors.transpose(1, 2)
    if scaling == "root":
        products = products / math.sqrt(vectors.shape[2])
    return products.softmax(-1)


def dual_attention(features: Tensor, scaling: AttentionScaling) -> Tensor:
    """(N, C, H, W) → (N, 2C, HW): features re-weighted by either map, side by side (E7)."""
    values = functional.normalize(features, dim=1) if scaling == "unit" else features
    values = values.flatten(2)  # (N, C, HW)
    by_position = values @ spatial_map(features, scaling).transpose(1, 2)
    by_channel = channel_map(features, scaling) @ values
    return torch.cat([by_position, by_channel], 1)
