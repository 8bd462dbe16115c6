"""EfficientNet-Lite0 encoder with a small feature-pyramid decoder, for edge devices.

Encoder: EfficientNet-Lite (Google, 2020): EfficientNet-B0's widths and kernels (arXiv 1905.11946)
with ReLU6 and without squeeze-and-excite. Decoder: top-down additions (Lin et al., CVPR 2017) with
depth-wise separable convolutions. Everything is convolution, BatchNorm, ReLU6, addition or bilinear
resizing by two: each has an int8 kernel on every edge runtime, and each scale has statistics that
BatchNorm-based adaptation can use. LR-ASPP's sigmoid gate has neither.

Encoder names are those of the package ``efficientnet-lite-pytorch``, so ImageNet weights load.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Stage:
    """Blocks of one resolution and width."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, stride=1, expansion=1, channels=16),
    Stage(2, 3, stride=2, expansion=6, channels=24),
    Stage(2, 5, stride=2, expansion=6, channels=40),
    Stage(3, 3, stride=2, expansion=6, channels=80),
    Stage(3, 5, stride=1, expansion=6, channels=112),
    Stage(4, 5, stride=2, expansion=6, channels=192),
    Stage(1, 3, stride=1, expansion=6, channels=320),
)
STEM_CHANNELS = 32
# TensorFlow's batch-norm constants, which the released weights were trained with.
EPSILON, MOMENTUM = 1e-3, 0.01


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON, momentum=MOMENTUM)


class SamePadConv(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding: at stride 2 the extra pixel is at the end."""

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for axis in (1, 0):
            kernel, stride, size = self.kernel_size[axis], self.stride[axis], x.shape[2 + axis]
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(functional.pad(x, pads) if any(pads) else x)


class MBConv(nn.Module):
    """Inverted residual: expand, depth-wise convolve, project."""

    def __init__(self, inputs: int, stage: Stage, stride: int) -> None:
        super().__init__()
        wide, outputs = inputs * stage.expansion, stage.channels
        self.expands = stage.expansion != 1
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, wide, 1, bias=False)
            self._bn0 = _norm(wide)
        self._depthwise_conv = SamePadConv(
            wide, wide, stage.kernel, stride, groups=wide, bias=False
        )
        self._bn1 = _norm(wide)
        self._project_conv = nn.Conv2d(wide, outputs, 1, bias=False)
        self._bn2 = _norm(outputs)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        inside = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        inside = functional.relu6(self._bn1(self._depthwise_conv(inside)))
        inside = self._bn2(self._project_conv(inside))
        return x + inside if self.shortcut else inside


class Encoder(nn.Module):
    """(N, 3, H, W) → the last features of each resolution, from stride 2 to the deepest kept."""

    def __init__(self, num_stages: int) -> None:
        super().__init__()
        self._conv_stem = SamePadConv(3, STEM_CHANNELS, 3, 2, bias=False)
        self._bn0 = _norm(STEM_CHANNELS)
        blocks: list[nn.Module] = []
        self.taps: list[int] = []  # index of the last block of each resolution
        self.tap_channels: list[int] = []
        channels = STEM_CHANNELS
        for stage in STAGES[:num_stages]:
            if stage.stride == 2:
                self.taps.append(len(blocks) - 1)
                self.tap_channels.append(channels)
            for repeat in range(stage.repeats):
                blocks.append(MBConv(channels, stage, stage.stride if repeat == 0 else 1))
                channels = stage.channels
        self.taps.append(len(blocks) - 1)
        self.tap_channels.append(channels)
        self._blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        features = []
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in self.taps:
                features.append(x)
        return features


class SeparableConv(nn.Sequential):
    """Depth-wise 3x3 and point-wise convolution, each with BatchNorm, then ReLU6."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            _norm(channels),
            nn.Conv2d(channels, channels, 1, bias=False),
            _norm(channels),
            nn.ReLU6(),
        )


class Decoder(nn.Module):
    """Top-down pyramid from the deepest feature to stride 4."""

    def __init__(self, feature_channels: list[int], width: int, num_classes: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), _norm(width))
            for channels in feature_channels
        )
        self.smooth = nn.ModuleList(SeparableConv(width) for _ in feature_channels)
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        levels = zip(features, self.lateral, self.smooth, strict=True)
        x: Tensor | None = None
        for feature, lateral, smooth in reversed(list(levels)):
            merged = lateral(feature)
            if x is not None:
                size = merged.shape[-2:]
                merged = merged + functional.interpolate(x, size, mode="bilinear")
            x = smooth(merged)
        assert x is not None
        return self.head(x)


class Lite0FPN(nn.Module):
    """Images (N, 3, H, W) → logits (N, classes, H, W).

    Args:
        num_classes: outputs.
        num_stages: how many of the seven encoder stages to keep; 7 ends at stride 32, 5 at 16.
        width: channels of the decoder.
    """

    def __init__(self, num_classes: int, num_stages: int = 7, width: int = 64) -> None:
        super().__init__()
        self.encoder = Encoder(num_stages)
        self.decoder = Decoder(self.encoder.tap_channels[1:], width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.decoder(self.encoder(images)[1:])
        return functional.interpolate(logits, images.shape[-2:], mode="bilinear")
