"""SegNet with a VGG-16 encoder (Badrinarayanan et al., TPAMI 2017), BatchNorm behind each layer.

The encoder has the layers of ``torchvision.models.vgg16_bn`` in their order.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

# Output channels of the convolutions of each resolution.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
STRIDE = 32


class Stage(nn.Sequential):
    """3x3 convolutions, each with BatchNorm and ReLU."""

    def __init__(self, inputs: int, widths: tuple[int, ...]) -> None:
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
        super().__init__(*layers)


def max_unpool(pooled: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Put each value where the encoder's pooling had found its maximum, and 0 elsewhere.

    Written as a comparison, because few runtimes have an operator for it. Where the four values of
    a window tie, which ReLU's zeros do, the value goes to all of them.

    Args:
        pooled: (N, C, H, W), to be doubled.
        before: (N, C, 2H, 2W), what the encoder pooled.
        after: (N, C, H, W), what it got.
    """
    chosen = before == functional.interpolate(after, scale_factor=2.0, mode="nearest")
    return functional.interpolate(pooled, scale_factor=2.0, mode="nearest") * chosen


class SegNet(nn.Module):
    """Images (N, 3, H, W), H and W multiples of 32 → logits (N, classes, H, W)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        inputs = (3, *(widths[-1] for widths in STAGES[:-1]))
        self.encoder = nn.ModuleList(
            Stage(channels, widths) for channels, widths in zip(inputs, STAGES, strict=True)
        )
        outputs = (num_classes, *(widths[-1] for widths in STAGES[:-1]))
        stages = list(zip(outputs, STAGES, strict=True))
        self.decoder = nn.ModuleList(
            Stage(widths[-1], (*widths[:-1], channels)) for channels, widths in stages[:0:-1]
        )
        self.decoder.append(Stage(STAGES[0][-1], STAGES[0][:-1]))
        self.classifier = nn.Conv2d(STAGES[0][0], num_classes, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2], images.shape[3]
        if height % STRIDE or width % STRIDE:
            raise ValueError(
                f"SegNet needs height and width in multiples of {STRIDE}; got {width}x{height}"
            )
        x, pooled = images, []
        for stage in self.encoder:
            before = stage(x)
            x = functional.max_pool2d(before, 2)
            pooled.append((before, x))
        for stage, (before, after) in zip(self.decoder, reversed(pooled), strict=True):
            x = stage(max_unpool(x, before, after))
        return self.classifier(x)
