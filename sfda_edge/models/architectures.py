"""MODELS: name → how to build a network; and networks that a user names or brings."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from sfda_edge.errors import CheckpointError, line_of
from sfda_edge.models.deeplabv2 import DeepLabV2
from sfda_edge.models.deeplabv3 import DeepLabV3
from sfda_edge.models.espnetv2 import ESPNetv2
from sfda_edge.models.lite0_fpn import Lite0FPN
from sfda_edge.models.segformer import B1, B2, SegFormer
from sfda_edge.models.segnet import SegNet
from sfda_edge.models.spec import IMAGENET_MEAN, IMAGENET_STD, PYTHON, Channels

# Other input sizes of a user's network are multiples of it, which suits most.
_USERS_VIEW_UNIT = 32


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How to build a network, and the normalisation that its published weights expect.

    Attributes:
        build: number of classes → a network from images (N, 3, H, W) to logits (N, C, h, w), in a
            form that ``main_output`` takes.
        mean, std: of RGB values in [0, 1].
        stride: height and width must be multiples of it.
        bgr: the network takes blue first.
        feature_layer: whose features methods compare; None for the deepest.
        view_unit: other input sizes that are tried are multiples of it.
    """

    build: Callable[[int], nn.Module]
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    stride: int = 1
    bgr: bool = False
    feature_layer: str | None = None
    view_unit: int = 16


# EfficientNet-Lite's input is (255 x - 127) / 128.
_LITE_MEAN: Channels = (127 / 255, 127 / 255, 127 / 255)
_LITE_STD: Channels = (128 / 255, 128 / 255, 128 / 255)
# Caffe's networks take blue, green, red from 0 to 255, less the mean and not divided.
_CAFFE_MEAN: Channels = (122.67891434 / 255, 116.66876762 / 255, 104.00698793 / 255)
_CAFFE_STD: Channels = (1 / 255, 1 / 255, 1 / 255)
MODELS: dict[str, Architecture] = {
    **{
        f"espnetv2_s{width}": Architecture(
            build=partial(ESPNetv2, width=width), stride=16, feature_layer="base_net.level4.6"
        )
        for width in (0.5, 1.0, 1.25, 1.5, 2.0)
    },
    "deeplabv3_resnet50": Architecture(build=DeepLabV3, feature_layer="backbone.layer4"),
    "deeplabv2_resnet101": Architecture(
        build=DeepLabV2, mean=_CAFFE_MEAN, std=_CAFFE_STD, bgr=True, feature_layer="layer4"
    ),
    **{
        name: Architecture(
            build=partial(SegFormer, size=size),
            feature_layer="decode_head.linear_c4",
            view_unit=32,
        )
        for name, size in (("segformer_b1", B1), ("segformer_b2", B2))
    },
    "segnet_vgg16": Architecture(build=SegNet, stride=32, feature_layer="encoder.4"),
    "lite0_fpn": Architecture(
        build=Lite0FPN, mean=_LITE_MEAN, std=_LITE_STD, feature_layer="encoder._blocks.15"
    ),
    "lite0_fpn_tiny": Architecture(
        build=partial(Lite0FPN, num_stages=4, width=48), mean=_LITE_MEAN, std=_LITE_STD
    ),
}


def architecture(name: str) -> Architecture:
    """An architecture by name, or ``package.module:function`` for a network of the user's.

    The function is called with the number of classes and returns an ``nn.Module``. Naming one here
    imports its module, so callers decide whose names they pass on.

    Raises:
        CheckpointError: no such network.
    """
    if name in MODELS:
        return MODELS[name]
    if name.startswith(PYTHON):
        return Architecture(build=partial(_given_in_python, name), view_unit=_USERS_VIEW_UNIT)
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise CheckpointError(
            f"unknown network '{name}'; known: {', '.join(MODELS)}, or package.module:function"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise  # the user's module is there, but something that it imports is not
        raise CheckpointError(
            f"cannot import '{module_name}' of network '{name}'; is its folder on PYTHONPATH?"
        ) from None
    except Exception as error:  # whatever the user's module raises while it is imported
        raise CheckpointError(
            f"importing '{module_name}' of network '{name}' raised {type(error).__name__}: "
            f"{error}{line_of(error)}"
        ) from error
    if not hasattr(module, function_name):
        raise CheckpointError(f"'{module_name}' has no '{function_name}'")
    return Architecture(build=getattr(module, function_name), view_unit=_USERS_VIEW_UNIT)


def _given_in_python(name: str, _num_classes: int) -> nn.Module:
    raise CheckpointError(
        f"these weights are of a network that was given in Python ({name.removeprefix(PYTHON)}): "
        "give it again, load_model(network, weights=…), or name it with --model "
        "package.module:function"
    )
