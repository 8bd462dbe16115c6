"""ModelSpec: what has to travel with weights so that anybody can use them."""

from __future__ import annotations

from dataclasses import dataclass, field

from runtime.bundle.labels import LabelSpace
from sfda_edge.labels.class_map import ClassMap

Channels = tuple[float, ...]  # a value each for red, green and blue, or one for grey
PYTHON = "python:"  # of networks that were given in Python, not by name
IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ModelSpec:
    """A network, what it expects and what it predicts.

    Attributes:
        architecture: a name in ``MODELS``, ``package.module:function``, or ``python:CLASS`` of one
            that was given in Python.
        label_space: the network's own outputs.
        input_hw: the size that images are resized to.
        mean, std: normalisation of RGB values in [0, 1]; one value each for a network of one
            channel, which gets grey.
        bgr: the network takes blue first.
        class_map: how outputs become the output classes; None when they already are.
        feature_layer: whose features methods compare; None for the architecture's, or the deepest.
    """

    architecture: str
    label_space: LabelSpace
    input_hw: tuple[int, int]
    # By name only. KW_ONLY would say it once, but msgspec cannot read it on Python 3.10.
    mean: Channels = field(default=IMAGENET_MEAN, kw_only=True)
    std: Channels = field(default=IMAGENET_STD, kw_only=True)
    class_map: ClassMap | None = field(default=None, kw_only=True)
    bgr: bool = field(default=False, kw_only=True)
    feature_layer: str | None = field(default=None, kw_only=True)

    @property
    def output_space(self) -> LabelSpace:
        """The classes of predicted label maps."""
        return self.class_map.target if self.class_map else self.label_space

    @property
    def num_channels(self) -> int:
        """Channels of the network's input."""
        return len(self.mean)
