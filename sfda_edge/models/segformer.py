"""SegFormer (Xie et al., NeurIPS 2021): a hierarchical transformer and a head of linear layers.

Parameters have the names of the authors' release, so that its weights load. The encoder normalises
with LayerNorm; the head has the one BatchNorm layer, which is all that methods with BatchNorm
statistics see of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class SegFormerSize:
    """What differs between B0 to B5; of all but B0 the widths are the same.

    Attributes:
        depths: blocks of each stage.
        head_width: channels of the head.
    """

    depths: tuple[int, int, int, int]
    head_width: int


B1 = SegFormerSize((2, 2, 2, 2), 256)
B2 = SegFormerSize((3, 4, 6, 3), 768)
_WIDTHS, _HEADS, _REDUCTIONS = (64, 128, 320, 512), (1, 2, 5, 8), (8, 4, 2, 1)
_MLP_RATIO = 4
_EPSILON = 1e-6  # of the norms of blocks and stages; all others have PyTorch's


class SegFormer(nn.Module):
    """Images (N, 3, H, W) → logits (N, C, H/4, W/4).

    Args:
        num_classes: C.
        size: B1 or B2.
    """

    def __init__(self, num_classes: int, size: SegFormerSize = B1) -> None:
        super().__init__()
        self.backbone = MixTransformer(size.depths)
        self.decode_head = LinearHead(num_classes, size.head_width)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        return self.decode_head(self.backbone(images))


def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.Conv2d):
        fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels // layer.groups
        nn.init.normal_(layer.weight, 0.0, (2 / fan_out) ** 0.5)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


class MixTransformer(nn.Module):
    """Four stages, at a quarter to a thirty-second of the input's size."""

    def __init__(self, depths: Sequence[int]) -> None:
        super().__init__()
        inputs = (3, *_WIDTHS[:-1])
        for stage, depth in enumerate(depths):
            width, number = _WIDTHS[stage], stage + 1
            embedding = PatchEmbedding(inputs[stage], width, *((7, 4) if stage == 0 else (3, 2)))
            blocks = (Block(width, _HEADS[stage], _REDUCTIONS[stage]) for _ in range(depth))
            setattr(self, f"patch_embed{number}", embedding)
            setattr(self, f"block{number}", nn.ModuleList(blocks))
            setattr(self, f"norm{number}", nn.LayerNorm(width, eps=_EPSILON))

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for number in range(1, len(_WIDTHS) + 1):
            tokens, size_hw = getattr(self, f"patch_embed{number}")(x)
            for block in getattr(self, f"block{number}"):
                tokens = block(tokens, size_hw)
            x = as_map(getattr(self, f"norm{number}")(tokens), size_hw)
            features.append(x)
        return features


Size = tuple[int, int]


def as_tokens(x: Tensor) -> Tensor:
    """(N, C, H, W) → (N, HW, C)."""
    return x.flatten(2).transpose(1, 2)


def as_map(tokens: Tensor, size_hw: Size) -> Tensor:
    """(N, HW, C) → (N, C, H, W)."""
    return tokens.transpose(1, 2).unflatten(2, size_hw)


class PatchEmbedding(nn.Module):
    """Overlapping patches as tokens: a strided convolution and a norm."""

    def __init__(self, inputs: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, width, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, Size]:
        x = self.proj(x)
        return self.norm(as_tokens(x)), (x.shape[2], x.shape[3])


class Block(nn.Module):
    """Attention, then a feed-forward network that mixes neighbours; each added to its input."""

    def __init__(self, width: int, num_heads: int, reduction: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPSILON)
        self.attn = Attention(width, num_heads, reduction)
        self.norm2 = nn.LayerNorm(width, eps=_EPSILON)
        self.mlp = MixFeedForward(width, _MLP_RATIO * width)

    def forward(self, tokens: Tensor, size_hw: Size) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens), size_hw)
        return tokens + self.mlp(self.norm2(tokens), size_hw)


class Attention(nn.Module):
    """Self-attention whose keys and values are at 1/reduction of the size."""

    def __init__(self, width: int, num_heads: int, reduction: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.reduces = reduction > 1
        if self.reduces:
            self.sr = nn.Conv2d(width, width, reduction, reduction)
            self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, size_hw: Size) -> Tensor:
        fewer = tokens
        if self.reduces:
            fewer = self.norm(as_tokens(self.sr(as_map(tokens, size_hw))))
        queries = self._by_head(self.q(tokens))
        keys, values = (self._by_head(part) for part in self.kv(fewer).chunk(2, 2))
        mixed = functional.scaled_dot_product_attention(queries, keys, values)
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def _by_head(self, tokens: Tensor) -> Tensor:
        """(N, L, C) → (N, heads, L, C / heads)."""
        return tokens.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class DepthwiseConv(nn.Module):
    """3x3 convolution of each channel; zero padding tells where a token is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, 1, 1, groups=width)

    def forward(self, tokens: Tensor, size_hw: Size) -> Tensor:
        return as_tokens(self.dwconv(as_map(tokens, size_hw)))


class MixFeedForward(nn.Module):
    """Two linear layers with a depthwise convolution between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.dwconv = DepthwiseConv(hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor, size_hw: Size) -> Tensor:
        return self.fc2(functional.gelu(self.dwconv(self.fc1(tokens), size_hw)))


class LinearProjection(nn.Module):
    """A linear layer on every position of a map."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, width)

    def forward(self, x: Tensor) -> Tensor:
        return as_map(self.proj(as_tokens(x)), (x.shape[2], x.shape[3]))


class Fusion(nn.Module):
    """1x1 convolution, BatchNorm, ReLU."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class LinearHead(nn.Module):
    """All stages at the first one's size, side by side, through linear layers."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        for number, inputs in enumerate(_WIDTHS, start=1):
            setattr(self, f"linear_c{number}", LinearProjection(inputs, width))
        self.linear_fuse = Fusion(len(_WIDTHS) * width, width)
        self.dropout = nn.Dropout2d(0.1)
        self.linear_pred = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        size_hw = features[0].shape[2:]
        projected = []
        for number in range(len(features), 0, -1):
            x = getattr(self, f"linear_c{number}")(features[number - 1])
            projected.append(
                functional.interpolate(x, size_hw, mode="bilinear", align_corners=False)
            )
        return self.linear_pred(self.dropout(self.linear_fuse(torch.cat(projected, 1))))
