"""A network as a user would bring it: --model user_network:build."""

from torch import nn


def build(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, num_classes, 1),
    )


def without_norm(num_classes: int) -> nn.Module:
    return nn.Conv2d(3, num_classes, 1)


def of_channels(num_channels: int, num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(num_channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, num_classes, 1)
    )


def grey(num_classes: int) -> nn.Module:
    """Of a thermal camera, say."""
    return of_channels(1, num_classes)


def with_depth(num_classes: int) -> nn.Module:
    return of_channels(4, num_classes)


def classifier(num_classes: int) -> nn.Module:
    return nn.Sequential(of_channels(3, num_classes), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def of_other_classes(num_classes: int) -> nn.Module:
    return of_channels(3, num_classes + 2)
