"""ResNet encoders with dilation instead of stride in the last stages (He et al., CVPR 2016).

Parameter names are torchvision's. ``stem_ceil`` and ``stride_on_first`` select the older Caffe form
that DeepLabV2 was published with.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

EXPANSION = 4


@dataclass(frozen=True)
class ResNetForm:
    """How many blocks, and which of the two published forms.

    Attributes:
        blocks: bottlenecks in each of the four stages.
        caffe: strides on the first 1x1 convolution and a ceiling max-pool (DeepLabV2), instead of
            strides on the 3x3 convolution (torchvision).
        warm_dilation: torchvision keeps the previous stage's dilation in a stage's first block.
    """

    blocks: tuple[int, int, int, int]
    caffe: bool = False
    warm_dilation: bool = True


RESNET50 = ResNetForm((3, 4, 6, 3))
RESNET101_CAFFE = ResNetForm((3, 4, 23, 3), caffe=True, warm_dilation=False)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolution and a shortcut."""

    def __init__(self, inputs: int, planes: int, stride: int, dilation: int, caffe: bool) -> None:
        super().__init__()
        outputs = planes * EXPANSION
        first, second = (stride, 1) if caffe else (1, stride)
        self.conv1 = nn.Conv2d(inputs, planes, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, second, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


def stem_and_stages(form: ResNetForm) -> dict[str, nn.Module]:
    """The modules conv1 … layer4; output stride 8, dilation 2 and 4 in the last stages."""
    parts: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        "bn1": nn.BatchNorm2d(64),
        "relu": nn.ReLU(inplace=True),
        "maxpool": nn.MaxPool2d(3, 2, 1, ceil_mode=form.caffe),
    }
    inputs, previous = 64, 1
    for index, (stride, dilation) in enumerate(((1, 1), (2, 1), (1, 2), (1, 4))):
        planes = 64 * 2**index
        first = previous if form.warm_dilation else dilation
        parts[f"layer{index + 1}"] = _stage(
            inputs, planes, form=form, index=index, stride=stride, dilations=(first, dilation)
        )
        inputs, previous = planes * EXPANSION, dilation
    return parts


def _stage(
    inputs: int, planes: int, form: ResNetForm, index: int, stride: int, dilations: tuple[int, int]
) -> nn.Sequential:
    outputs, (first, rest) = planes * EXPANSION, dilations
    opening = Bottleneck(inputs, planes, stride=stride, dilation=first, caffe=form.caffe)
    opening.downsample = nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
    )
    following = (
        Bottleneck(outputs, planes, stride=1, dilation=rest, caffe=form.caffe)
        for _ in range(form.blocks[index] - 1)
    )
    return nn.Sequential(opening, *following)
