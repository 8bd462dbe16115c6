"""Small networks as users bring them, for tasks on which no network of ours stands."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Norm = Callable[[int], nn.Module]


def _block(inputs: int, outputs: int, norm: Norm, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        norm(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        norm(outputs),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """Four scales; each is enlarged and joined to the finer one (Ronneberger et al., 2015).

    Args:
        num_classes: number of logits a pixel.
        norm: channels → a normalisation layer.
        widths: channels of each scale, finest first.
    """

    def __init__(self, num_classes: int, norm: Norm, widths: tuple[int, ...] = (16, 24, 48, 96)):
        super().__init__()
        down = [_block(3, widths[0], norm)]
        down += [_block(a, b, norm, 2) for a, b in itertools.pairwise(widths)]
        up = [_block(a + b, a, norm) for a, b in itertools.pairwise(widths)]
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(reversed(up))
        self.classify = nn.Conv2d(widths[0], num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) → logits (N, C, H, W)."""
        scales = [self.down[0](images)]
        for block in self.down[1:]:
            scales.append(block(scales[-1]))
        features = scales.pop()
        for block in self.up:
            finer = scales.pop()
            features = functional.interpolate(features, finer.shape[2:], mode="nearest")
            features = block(torch.cat([finer, features], 1))
        return self.classify(features)


def unet(num_classes: int) -> nn.Module:
    """With BatchNorm."""
    return UNet(num_classes, nn.BatchNorm2d)


def unet_groupnorm(num_classes: int) -> nn.Module:
    """With GroupNorm: no statistics of a data set, at half the size of its input."""
    return _Halved(UNet(num_classes, lambda channels: nn.GroupNorm(8, channels)))


class _Halved(nn.Module):
    """A network that sees every second row and column, which takes a quarter of the time."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) → logits (N, C, H / 2, W / 2)."""
        return self.network(functional.avg_pool2d(images, 2))


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of (N, C, H, W)."""

    def forward(self, features: Tensor) -> Tensor:
        """Normalise each pixel."""
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Mixer(nn.Module):
    """A ConvNeXt block (Liu et al., CVPR 2022), with attention over all positions or without."""

    def __init__(self, width: int, heads: int = 0) -> None:
        super().__init__()
        self.norm = LayerNorm2d(width)
        self.spatial = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True) if heads else None
        self.channels = nn.Sequential(
            LayerNorm2d(width), nn.Conv2d(width, 3 * width, 1), nn.GELU(),
            nn.Conv2d(3 * width, width, 1),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, C, H, W) → the same shape."""
        seen = self.norm(features)
        mixed = self.spatial(seen)
        if self.attention is not None:
            tokens = seen.flatten(2).transpose(1, 2)
            tokens = self.attention(tokens, tokens, tokens, need_weights=False)[0]
            mixed = mixed + tokens.transpose(1, 2).unflatten(2, seen.shape[2:])
        features = features + mixed
        return features + self.channels(features)


class LayerNormNet(nn.Module):
    """Patches of 4 x 4 pixels, three scales, attention at the coarsest; no BatchNorm."""

    def __init__(self, num_classes: int, widths: tuple[int, int, int] = (32, 64, 96)) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.patches = nn.Conv2d(3, fine, 7, 4, 3)
        self.fine = nn.Sequential(_Mixer(fine), _Mixer(fine))
        self.to_middle = nn.Sequential(LayerNorm2d(fine), nn.Conv2d(fine, middle, 2, 2))
        self.middle = nn.Sequential(_Mixer(middle), _Mixer(middle))
        self.to_coarse = nn.Sequential(LayerNorm2d(middle), nn.Conv2d(middle, coarse, 2, 2))
        self.coarse = nn.Sequential(_Mixer(coarse, heads=4), _Mixer(coarse, heads=4))
        self.joined = nn.ModuleList(nn.Conv2d(width, 64, 1) for width in widths)
        self.classify = nn.Sequential(_Mixer(64), nn.Conv2d(64, num_classes, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) → logits (N, C, H / 4, W / 4)."""
        fine = self.fine(self.patches(images))
        middle = self.middle(self.to_middle(fine))
        coarse = self.coarse(self.to_coarse(middle))
        joined = self.joined[0](fine)
        for project, features in zip(self.joined[1:], (middle, coarse), strict=True):
            enlarged = functional.interpolate(
                project(features), joined.shape[2:], mode="bilinear", align_corners=False
            )
            joined = joined + enlarged
        return self.classify(joined)


def layernorm(num_classes: int) -> nn.Module:
    """The network with LayerNorm and attention."""
    return LayerNormNet(num_classes)
