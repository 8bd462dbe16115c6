"""Build the network of a ModelSpec."""

from __future__ import annotations

import logging

import torch
from torch import nn

from sfda_edge.batchnorm.layers import local_batchnorm
from sfda_edge.errors import CheckpointError, line_of
from sfda_edge.models.architectures import MODELS, Architecture, architecture
from sfda_edge.models.inference import main_output
from sfda_edge.models.spec import ModelSpec

logger = logging.getLogger(__name__)
_MOST_PIXELS = 1 << 26  # 8192 x 8192: the features of larger images fit nowhere


def build_model(spec: ModelSpec) -> nn.Module:
    """A network with fresh weights.

    Raises:
        CheckpointError: the architecture is unknown, cannot be built, or does not take the input
            size or what frames consist of.
    """
    require_possible_input(spec)
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
    except CheckpointError:
        raise
    except Exception as error:
        own = error.__traceback__ is not None and error.__traceback__.tb_next is None
        place = "" if own else line_of(error)  # it does not take the call
        raise CheckpointError(
            f"{call}, the number of classes, raised {type(error).__name__}: {error}{place}"
        ) from error
    if not isinstance(model, nn.Module):
        raise CheckpointError(
            f"{call} returned {type(model).__name__}; a torch.nn.Module is needed"
        )
    return model


def require_possible_input(spec: ModelSpec) -> None:
    """Check a network's input: frames have red, green and blue, of which grey can be made.

    Raises:
        CheckpointError: it takes other channels, their normalisation is impossible, or its size is.
    """
    height, width = spec.input_hw
    if min(height, width) < 1 or height * width > _MOST_PIXELS:
        raise CheckpointError(
            f"an input of {width}x{height} is not possible; --size takes 1 to {_MOST_PIXELS:,} "
            "pixels, and a device hardly more than 2048x1024"
        )
    if len(spec.mean) != len(spec.std) or len(spec.mean) not in (1, 3):
        raise CheckpointError(
            f"--mean has {len(spec.mean)} and --std {len(spec.std)} values; a network takes 3 "
            "channels (RGB) or 1 (grey), and needs a value for each. Cameras and files have no "
            "other channels"
        )
    if 0 in spec.std:
        raise CheckpointError("--std must not hold 0: values are divided by it")
    if not all(torch.isfinite(torch.tensor([*spec.mean, *spec.std]))):
        raise CheckpointError("--mean and --std must be finite numbers")


@torch.no_grad()
def usable_memory_format(model: nn.Module, spec: ModelSpec) -> torch.memory_format:
    """Channels last, several times faster on a CPU; contiguous for networks that cannot take it.

    Such as those that fold channels into the batch by ``view``.
    """
    if spec.architecture in MODELS:
        return torch.channels_last
    height, width = spec.input_hw
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    image = torch.zeros(2, spec.num_channels, height, width, device=device)
    training = model.training
    try:
        main_output(model.eval()(image.contiguous(memory_format=torch.channels_last)))
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        logger.info(
            "memory format: contiguous, which is slower, since channels last fails: %s", reason
        )
        return torch.contiguous_format
    finally:
        model.train(training)
    return torch.channels_last
