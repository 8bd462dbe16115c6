"""Build the network of a ModelSpec, and check that a user's network fits."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from sfda_edge.batchnorm.layers import local_batchnorm
from sfda_edge.errors import CheckpointError, line_of
from sfda_edge.models.architectures import MODELS, Architecture, architecture
from sfda_edge.models.inference import main_output
from sfda_edge.models.spec import ModelSpec

logger = logging.getLogger(__name__)


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


def _require_channels(spec: ModelSpec) -> None:
    """Frames have red, green and blue, of which grey can be made, and nothing else."""
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


@torch.no_grad()  # not inference mode: what a network keeps for later could not be trained through
def require_fits_frames(model: nn.Module, spec: ModelSpec) -> None:
    """Run a user's network on noise, twice.

    Raises:
        CheckpointError: it does not take what frames consist of, returns something else than logits
            of the classes, or not the same each time.
    """
    _require_channels(spec)
    height, width = spec.input_hw
    channels, classes = spec.num_channels, spec.label_space.num_classes
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, channels, height, width, generator=generator)
    try:
        with _Outputs(model) as first:
            output = main_output(model(image.clone()))
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{spec.architecture} does not take (1, {channels}, {height}, {width}): {reason}. A "
            "network of 1 channel needs one value of --mean and --std; one of 4 or more cannot be "
            "given images from cameras and files, which have red, green and blue"
        ) from None
    shape = tuple(output.shape)
    if output.ndim != 4 or shape[:2] != (1, classes):
        raise CheckpointError(
            f"{spec.architecture} returned {shape}; logits (1, {classes}, h, w) are needed, one "
            "for each of the classes of --label-space"
        )
    with _Outputs(model) as second:
        model(image.clone())
    if random := first.first_different(second):
        raise CheckpointError(
            f"{spec.architecture} is not deterministic: module '{random}' returned something else "
            "for the same image, in evaluation mode. Dropout must follow the training flag: "
            "dropout(x, p, training=self.training)"
        )


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


class _Outputs:
    """The tensors that a network's modules return, by name, in the order in which they finish."""

    def __init__(self, model: nn.Module) -> None:
        self._model, self.found = model, dict[str, Tensor]()

    def __enter__(self) -> _Outputs:
        self._hooks = [
            module.register_forward_hook(self._hook(name or "the network"))
            for name, module in self._model.named_modules()
        ]
        return self

    def _hook(self, name: str) -> Any:
        def keep(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                self.found[name] = output.clone()

        return keep

    def __exit__(self, *_error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def first_different(self, other: _Outputs) -> str | None:
        """The first module whose output is not exactly the other's; None where all are."""
        for name, output in self.found.items():
            if name in other.found and not torch.equal(
                output.nan_to_num(), other.found[name].nan_to_num()
            ):
                return name
        return None
