"""DeepLabV2 with a ResNet-101 encoder (Chen et al., TPAMI 2018); names as in AdaptSegNet.

The field's adaptation baseline, in the single-output form: Caffe-style strides, the batch
normalisation of the encoder, and a sum of dilated classifiers (``layer6``). AdaptSegNet's
second, shallower classifier (``layer5``) is kept so that its checkpoints load.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfda_edge.models.resnet import RESNET101_CAFFE, stem_and_stages

DILATIONS = (6, 12, 18, 24)
# AdaptSegNet returns from inside its loop over the classifiers, so that its published weights were
# trained with the first two alone. Adding the others, which never learned, would spoil the answer.
SUMMED = 2


class DilatedClassifier(nn.Module):
    """The sum of dilated 3x3 convolutions; four have weights, the first two count."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.conv2d_list = nn.ModuleList(
            nn.Conv2d(inputs, num_classes, 3, padding=rate, dilation=rate) for rate in DILATIONS
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([conv(x) for conv in list(self.conv2d_list)[:SUMMED]]).sum(0)


class DeepLabV2(nn.Module):
    """Images (N, 3, H, W) → logits (N, classes, H, W); output stride 8."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        parts = stem_and_stages(RESNET101_CAFFE)
        for name, module in parts.items():
            self.add_module(name, module)
        self._stage_names = tuple(parts)
        self.layer5 = DilatedClassifier(1024, num_classes)
        self.layer6 = DilatedClassifier(2048, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for name in self._stage_names:
            x = self.get_submodule(name)(x)
        size = images.shape[-2:]
        return functional.interpolate(self.layer6(x), size, mode="bilinear", align_corners=True)
