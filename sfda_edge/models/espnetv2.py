"""ESPNetv2 with its pyramid decoder (Mehta et al., CVPR 2019, arXiv 1811.11431; EdgeNets).

Module names follow the authors' release, so that its Cityscapes weights load strictly. Words: CBR
is convolution, BatchNorm and PReLU; EESP is the extremely efficient spatial pyramid unit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = {
    0.5: (16, 32, 64, 128),
    1.0: (32, 64, 128, 256),
    1.25: (32, 80, 160, 320),
    1.5: (32, 96, 192, 384),
    2.0: (32, 128, 256, 512),
}
BRANCHES = 4
PYRAMID_SCALES = (2.0, 1.5, 1.0, 0.5, 0.1)
DECODER_PLANES = (64, 48, 32)
STRIDE = 16


class ConvBN(nn.Module):
    """Convolution and BatchNorm, then PReLU unless ``activate`` is false."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(outputs)
        if activate:
            self.act = nn.PReLU(outputs)
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return self.act(x) if self.activate else x


class NormActivation(nn.Module):
    """BatchNorm and PReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(x))


class DilatedBranch(nn.Module):
    """Depth-wise dilated 3x3 convolution, one branch of an EESP unit."""

    def __init__(self, channels: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            channels, channels, 3, stride, dilation, dilation, groups=channels, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def branch_dilations(receptive_field_limit: int) -> list[int]:
    """Dilation of each branch: kernels 3, 5, 7, 9; one above the limit becomes 3; ascending."""
    kernels = (3 + 2 * branch for branch in range(BRANCHES))
    return sorted((k if k <= receptive_field_limit else 3) // 2 for k in kernels)


class EESP(nn.Module):
    """Split, transform with growing dilation, fuse hierarchically, merge (section 3.1)."""

    def __init__(self, inputs: int, outputs: int, stride: int, receptive_field_limit: int) -> None:
        super().__init__()
        width = outputs // BRANCHES
        self.proj_1x1 = ConvBN(inputs, width, 1, groups=BRANCHES)
        self.spp_dw = nn.ModuleList(
            DilatedBranch(width, stride, d) for d in branch_dilations(receptive_field_limit)
        )
        self.conv_1x1_exp = ConvBN(outputs, outputs, 1, groups=BRANCHES, activate=False)
        self.br_after_cat = NormActivation(outputs)
        self.module_act = nn.PReLU(outputs)  # the release has it in strided units too, unused
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.proj_1x1(x)
        branches = [self.spp_dw[0](reduced)]
        for branch in list(self.spp_dw)[1:]:
            branches.append(branch(reduced) + branches[-1])
        merged = self.conv_1x1_exp(self.br_after_cat(torch.cat(branches, 1)))
        if self.stride == 2:
            return merged
        if merged.shape == x.shape:
            merged = merged + x
        return self.module_act(merged)


class DownSampler(nn.Module):
    """Halve the size; re-inject the input image at the new size (section 3.2)."""

    def __init__(self, inputs: int, outputs: int, receptive_field_limit: int) -> None:
        super().__init__()
        self.eesp = EESP(inputs, outputs - inputs, 2, receptive_field_limit)
        self.inp_reinf = nn.Sequential(ConvBN(3, 3, 3), ConvBN(3, outputs, 1, activate=False))
        self.act = nn.PReLU(outputs)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        x = torch.cat([_halve(x), self.eesp(x)], 1)
        while image.shape[2] > x.shape[2]:
            image = _halve(image)
        return self.act(x + self.inp_reinf(image))


def _halve(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, stride=2, padding=1)


class Encoder(nn.Module):
    """(N, 3, H, W) → features at strides 2, 4, 8 and 16."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        w1, w2, w3, w4 = widths
        self.level1 = ConvBN(3, w1, 3, stride=2)
        self.level2_0 = DownSampler(w1, w2, 13)
        self.level3_0 = DownSampler(w2, w3, 11)
        self.level3 = nn.ModuleList(EESP(w3, w3, 1, 9) for _ in range(3))
        self.level4_0 = DownSampler(w3, w4, 9)
        self.level4 = nn.ModuleList(EESP(w4, w4, 1, 7) for _ in range(7))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        level1 = self.level1(image)
        level2 = self.level2_0(level1, image)
        level3 = self.level3_0(level2, image)
        for unit in self.level3:
            level3 = unit(level3)
        level4 = self.level4_0(level3, image)
        for unit in self.level4:
            level4 = unit(level4)
        return level1, level2, level3, level4


class _ConvBlock(nn.Module):
    """CBR under the decoder's names."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int = 1) -> None:
        super().__init__()
        conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
        self.cbr = nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.PReLU(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.cbr(x)


class _NormBlock(nn.Module):
    """BatchNorm and PReLU under the decoder's names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.br = nn.Sequential(nn.BatchNorm2d(channels), nn.PReLU(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.br(x)


class EfficientPyramidPool(nn.Module):
    """Depth-wise convolutions at five scales of the feature map, merged."""

    def __init__(self, inputs: int, width: int, outputs: int, last_norm: bool) -> None:
        super().__init__()
        scales = len(PYRAMID_SCALES)
        self.projection_layer = _ConvBlock(inputs, width, 1)
        self.stages = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False) for _ in PYRAMID_SCALES
        )
        self.merge_layer = nn.Sequential(
            _NormBlock(scales * width),
            nn.ChannelShuffle(scales),
            _ConvBlock(scales * width, width, 3, groups=width),
            nn.Conv2d(width, outputs, 1, bias=not last_norm),
        )
        self.br = _NormBlock(outputs) if last_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.projection_layer(x)
        size_hw = x.shape[2], x.shape[3]
        scaled = [
            _at_scale(x, size_hw, scale, stage)
            for scale, stage in zip(PYRAMID_SCALES, self.stages, strict=True)
        ]
        return self.br(self.merge_layer(torch.cat(scaled, 1)))


def _at_scale(x: Tensor, size_hw: tuple[int, int], scale: float, stage: nn.Module) -> Tensor:
    height, width = (max(math.ceil(side * scale), 5) for side in size_hw)
    if scale < 1:
        small = stage(functional.adaptive_avg_pool2d(x, (height, width)))
        return _resize(small, size_hw)
    if scale > 1:
        large = stage(_resize(x, (height, width)))
        return functional.adaptive_avg_pool2d(large, size_hw)
    return stage(x)


def _resize(x: Tensor, size_hw: tuple[int, int]) -> Tensor:
    return functional.interpolate(x, size_hw, mode="bilinear", align_corners=True)


class EfficientPointwiseConv(nn.Module):
    """Skip connection: grouped 3x3 convolution weighted by the global context."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.wt_layer = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, outputs, 1, bias=False), nn.Sigmoid()
        )
        self.expansion_layer = _ConvBlock(inputs, outputs, 3, groups=math.gcd(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.expansion_layer(x) * self.wt_layer(x)


class ESPNetv2(nn.Module):
    """Images (N, 3, H, W), H and W multiples of 16 → logits (N, classes, H, W)."""

    def __init__(self, num_classes: int, width: float) -> None:
        super().__init__()
        level1, level2, level3, level4 = WIDTHS[width]
        plane2, plane3, plane4 = DECODER_PLANES
        pyramid = min(num_classes // 2, 16)
        self.base_net = Encoder(WIDTHS[width])
        self.bu_dec_l1 = EfficientPyramidPool(level4, pyramid, plane2, last_norm=True)
        self.bu_dec_l2 = EfficientPyramidPool(plane2, pyramid, plane3, last_norm=True)
        self.bu_dec_l3 = EfficientPyramidPool(plane3, pyramid, plane4, last_norm=True)
        self.bu_dec_l4 = EfficientPyramidPool(plane4, pyramid, num_classes, last_norm=False)
        self.merge_enc_dec_l2 = EfficientPointwiseConv(level3, plane2)
        self.merge_enc_dec_l3 = EfficientPointwiseConv(level2, plane3)
        self.merge_enc_dec_l4 = EfficientPointwiseConv(level1, plane4)
        self.bu_br_l2 = nn.Sequential(nn.BatchNorm2d(plane2), nn.PReLU(plane2))
        self.bu_br_l3 = nn.Sequential(nn.BatchNorm2d(plane3), nn.PReLU(plane3))
        self.bu_br_l4 = nn.Sequential(nn.BatchNorm2d(plane4), nn.PReLU(plane4))

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2], images.shape[3]
        if height % STRIDE or width % STRIDE:
            raise ValueError(
                f"ESPNetv2 needs height and width in multiples of {STRIDE}; got {width}x{height}"
            )
        level1, level2, level3, level4 = self.base_net(images)
        x = self.bu_dec_l1(level4)
        x = self.bu_dec_l2(self.bu_br_l2(_double(x) + self.merge_enc_dec_l2(level3)))
        x = self.bu_dec_l3(self.bu_br_l3(_double(x) + self.merge_enc_dec_l3(level2)))
        x = self.bu_dec_l4(self.bu_br_l4(_double(x) + self.merge_enc_dec_l4(level1)))
        return _resize(x, (height, width))


def _double(x: Tensor) -> Tensor:
    return _resize(x, (2 * x.shape[2], 2 * x.shape[3]))
