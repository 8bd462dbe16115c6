"""Dual attention without parameters: which positions, and which channels, look alike (E5 to E7).

DANet's maps (Fu et al., CVPR 2019) without its projections, as SFDA and the same authors' ZAQ use
them. Features are scaled to unit length first, as in ZAQ: the softmax over raw products of ReLU
features with hundreds of channels is one-hot and teaches nothing. SFDA's text does not say; this
is our reading.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def spatial_map(features: Tensor) -> Tensor:
    """(N, C, H, W) → (N, HW, HW): row j says how much each position i looks like j (E5)."""
    positions = functional.normalize(features, dim=1).flatten(2)  # (N, C, HW)
    return (positions.transpose(1, 2) @ positions).softmax(-1)


def channel_map(features: Tensor) -> Tensor:
    """(N, C, H, W) → (N, C, C): row j says how much each channel i looks like j (E6)."""
    channels = functional.normalize(features.flatten(2), dim=2)  # (N, C, HW)
    return (channels @ channels.transpose(1, 2)).softmax(-1)


def dual_attention(features: Tensor) -> Tensor:
    """(N, C, H, W) → (N, 2C, HW): features re-weighted by either map, side by side (E7)."""
    values = functional.normalize(features, dim=1).flatten(2)  # (N, C, HW)
    by_position = values @ spatial_map(features).transpose(1, 2)
    by_channel = channel_map(features) @ values
    return torch.cat([by_position, by_channel], 1)
