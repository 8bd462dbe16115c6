"""DeepLabV3 with a ResNet-50 encoder (Chen et al., arXiv 1706.05587); names as torchvision's.

Checkpoints of ``torchvision.models.segmentation.deeplabv3_resnet50`` load; their auxiliary head,
(``aux_classifier``), used in training alone, is left out when they are read.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfda_edge.models.resnet import RESNET50, stem_and_stages

ATROUS_RATES = (12, 24, 36)


def _conv_norm(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> list[nn.Module]:
    padding = 0 if kernel == 1 else dilation
    return [
        nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


class ImagePooling(nn.Sequential):
    """Global average, as wide as the input again."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), *_conv_norm(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        pooled = super().forward(x)
        return functional.interpolate(pooled, size, mode="bilinear", align_corners=False)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling."""

    def __init__(self, inputs: int, outputs: int = 256) -> None:
        super().__init__()
        branches: list[nn.Module] = [nn.Sequential(*_conv_norm(inputs, outputs, 1))]
        branches += [nn.Sequential(*_conv_norm(inputs, outputs, 3, rate)) for rate in ATROUS_RATES]
        branches.append(ImagePooling(inputs, outputs))
        self.convs = nn.ModuleList(branches)
        merge = _conv_norm(len(branches) * outputs, outputs, 1)
        self.project = nn.Sequential(*merge, nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.project(torch.cat([branch(x) for branch in self.convs], 1))


class DeepLabV3(nn.Module):
    """Images (N, 3, H, W) → logits (N, classes, H, W); output stride 8."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential()
        for name, module in stem_and_stages(RESNET50).items():
            self.backbone.add_module(name, module)
        self.classifier = nn.Sequential(
            ASPP(2048), *_conv_norm(256, 256, 3), nn.Conv2d(256, num_classes, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        logits = self.classifier(self.backbone(images))
        size = images.shape[-2:]
        return functional.interpolate(logits, size, mode="bilinear", align_corners=False)
