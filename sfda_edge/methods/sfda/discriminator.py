"""The discriminator of patches: five strided convolutions (ADVENT), told the patch's position."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

_WIDTHS = (64, 128, 256, 512)


class PatchDiscriminator(nn.Module):
    """Patch maps (N, C, h, w) and positions (N,) → logits (N,): above 0 is "easy".

    The convolutions are ADVENT's (Vu et al., CVPR 2019). The condition enters as a projection
    (Miyato and Koyama, ICLR 2018): the product of the pooled features with the position's learned
    embedding is added to the unconditional answer. The paper says "conditional" with an embedding
    of 256 and leaves the form open.

    Args:
        channels: of the patch maps.
        num_positions: K².
        embedding_size: of the position.
    """

    def __init__(self, channels: int, num_positions: int, embedding_size: int = 256) -> None:
        super().__init__()
        widths = (channels, *_WIDTHS)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 4, 2, 1) for inputs, outputs in pairwise(widths)
        )
        self.features = nn.Linear(_WIDTHS[-1], embedding_size)
        self.position = nn.Embedding(num_positions, embedding_size)
        self.answer = nn.Linear(embedding_size, 1)

    def forward(self, patches: Tensor, positions: Tensor) -> Tensor:
        x = patches
        for convolution in self.convolutions:
            x = functional.leaky_relu(convolution(_at_least_two(x)), 0.2)
        features = self.features(x.mean((2, 3)))
        return self.answer(features)[:, 0] + (features * self.position(positions)).sum(1)


def _at_least_two(x: Tensor) -> Tensor:
    """Small patches shrink to one pixel before the last convolution; pad what it could not take."""
    return functional.pad(x, (0, max(0, 2 - x.shape[3]), 0, max(0, 2 - x.shape[2])))
