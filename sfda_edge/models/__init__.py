"""The networks that we know, and any that a user brings."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from sfda_edge.batchnorm.statistics import local_batchnorm
from sfda_edge.errors import CheckpointError, line_of
from sfda_edge.models.deeplabv2 import DeepLabV2
from sfda_edge.models.deeplabv3 import DeepLabV3
from sfda_edge.models.espnetv2 import ESPNetv2
from sfda_edge.models.lite0_fpn import Lite0FPN
from sfda_edge.models.segnet import SegNet
from sfda_edge.models.spec import IMAGENET_MEAN, IMAGENET_STD, Channels, ModelSpec

__all__ = [
    "MODELS",
    "Architecture",
    "Channels",
    "ModelSpec",
    "architecture",
    "build_model",
    "require_fits_frames",
]


@dataclass(frozen=True)
class Architecture:
    """How to build a network, and the normalisation that its published weights expect.

    Attributes:
        build: number of classes → a network from images (N, 3, H, W) to logits (N, C, h, w); ours
            answer at the input's size.
        mean, std: of RGB values in [0, 1].
        stride: height and width must be multiples of it.
        bgr: the network takes blue first.
        training_only: prefixes of keys in published checkpoints that inference has no use for.
        feature_layer: whose answers methods compare; None for the deepest.
        view_unit: other sizes to look at a target in are multiples of it; 32 suits most networks.
    """

    build: Callable[[int], nn.Module]
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    stride: int = 1
    training_only: tuple[str, ...] = ()
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
            partial(ESPNetv2, width=width), stride=16, feature_layer="base_net.level4.6"
        )
        for width in (0.5, 1.0, 1.25, 1.5, 2.0)
    },
    "deeplabv3_resnet50": Architecture(
        DeepLabV3, training_only=("aux_classifier.",), feature_layer="backbone.layer4"
    ),
    "deeplabv2_resnet101": Architecture(
        DeepLabV2, _CAFFE_MEAN, _CAFFE_STD, bgr=True, feature_layer="layer4"
    ),
    "segnet_vgg16": Architecture(SegNet, stride=32, feature_layer="encoder.4"),
    "lite0_fpn": Architecture(Lite0FPN, _LITE_MEAN, _LITE_STD, feature_layer="encoder._blocks.15"),
    "lite0_fpn_tiny": Architecture(
        partial(Lite0FPN, num_stages=4, width=48), _LITE_MEAN, _LITE_STD
    ),
}


def architecture(name: str) -> Architecture:
    """An architecture by name, or ``package.module:function`` for a network of the user's.

    The function is called with the number of classes and returns an ``nn.Module``.

    Raises:
        CheckpointError: no such network.
    """
    if name in MODELS:
        return MODELS[name]
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
    if not hasattr(module, function_name):
        raise CheckpointError(f"'{module_name}' has no '{function_name}'")
    return Architecture(getattr(module, function_name), view_unit=32)


def build_model(spec: ModelSpec) -> nn.Module:
    """A network with fresh weights.

    Raises:
        CheckpointError: the architecture is unknown, cannot be built, or does not take the input
            size or what frames consist of.
    """
    _require_channels(spec)
    found = architecture(spec.architecture)
    height, width = spec.input_hw
    if height % found.stride or width % found.stride:
        raise CheckpointError(
            f"{spec.architecture} needs width and height in multiples of {found.stride}; "
            f"got {width}x{height}. Choose another --size"
        )
    if spec.architecture in MODELS:
        return found.build(spec.label_space.num_classes)
    return local_batchnorm(_built_by_user(spec, found))


def _built_by_user(spec: ModelSpec, found: Architecture) -> nn.Module:
    call = f"{spec.architecture} called with {spec.label_space.num_classes}"
    try:
        model = found.build(spec.label_space.num_classes)
    except Exception as error:
        own = error.__traceback__ is not None and error.__traceback__.tb_next is None
        place = "" if own else line_of(error)  # it does not take the call
        raise CheckpointError(
            f"{call}, the number of classes, raised {type(error).__name__}: {error}{place}"
        ) from error
    if not isinstance(model, nn.Module):
        raise CheckpointError(
            f"{call} returned {type(model).__name__}; a torch.nn.Module is wanted"
        )
    return model


def _require_channels(spec: ModelSpec) -> None:
    """Frames have red, green and blue, of which grey can be made, and nothing else."""
    if len(spec.mean) != len(spec.std) or len(spec.mean) not in (1, 3):
        raise CheckpointError(
            f"--mean has {len(spec.mean)} and --std {len(spec.std)} values; a network takes 3 "
            "channels (RGB) or 1 (grey), and needs a value for each. Cameras and files give "
            "nothing to feed other channels with"
        )
    if 0 in spec.std:
        raise CheckpointError("--std must not hold 0: values are divided by it")


@torch.no_grad()  # not inference mode: what a network keeps for later could not be learnt through
def require_fits_frames(model: nn.Module, spec: ModelSpec) -> None:
    """Run a network of the user's once, on a grey picture.

    Raises:
        CheckpointError: it does not take what frames consist of, or answers with something else
            than logits of the classes.
    """
    height, width = spec.input_hw
    channels, classes = spec.num_channels, spec.label_space.num_classes
    try:
        answer = model(torch.zeros(1, channels, height, width))
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{spec.architecture} does not take (1, {channels}, {height}, {width}): {reason}. A "
            "network of 1 channel needs one value of --mean and --std; one of 4 or more cannot be "
            "fed from cameras and files, which give red, green and blue"
        ) from None
    shape = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
    if not isinstance(answer, torch.Tensor) or answer.ndim != 4 or shape[:2] != (1, classes):
        raise CheckpointError(
            f"{spec.architecture} answers with {shape}; logits (1, {classes}, h, w) are wanted "
            "and nothing else, one for each of the classes of --label-space"
        )
