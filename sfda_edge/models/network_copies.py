"""Copies of a user's network that are its own.

Some networks keep features by a hook or a closure over themselves: their deep copies read, or
write, what belongs to the original. Those are built again where others are copied.
"""

from __future__ import annotations

import copy
import logging
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sfda_edge.errors import CheckpointError
from sfda_edge.models.build import build_model
from sfda_edge.models.inference import main_output
from sfda_edge.models.network_outputs import Conversion
from sfda_edge.models.spec import PYTHON, ModelSpec

logger = logging.getLogger(__name__)


def make_copies_whole(model: nn.Module, spec: ModelSpec, image: Tensor) -> None:
    """Have ``copy.deepcopy`` build the network again where a plain copy is not one of its own.

    Args:
        model: has seen another image last.
        spec: of the network.
        image: to compare with.

    Raises:
        CheckpointError: it cannot be built again.
    """
    if is_whole(copy.deepcopy(model), model, image):
        return
    if spec.architecture.startswith(PYTHON):
        raise not_copied(spec)
    logger.info(
        "copies of %s compute something else, since it keeps features outside its modules; it is "
        "built again for each",
        spec.architecture,
    )
    # What copy.deepcopy looks for first, also on an instance.
    model.__deepcopy__ = partial(_built_again, model, spec)  # type: ignore[assignment]
    if not is_whole(copy.deepcopy(model), model, image):
        raise not_copied(spec)


def is_whole(copied: nn.Module, model: nn.Module, image: Tensor) -> bool:
    """Whether a copy computes what the network does, with weights of its own.

    Args:
        copied: is spoiled.
        model: has seen another image last; one that is not deterministic counts as copied.
        image: to compare with.

    Raises:
        CheckpointError: the network itself returns nothing that can be read as logits.
    """
    try:
        found = main_output(copied(image.clone()))
    except CheckpointError:  # it returns nothing that is read as logits
        main_output(model(image.clone()))  # nor does the network: this is the reason, then
        return False
    except Exception:  # of a user's network; they have no common base
        return False
    expected, again = (main_output(model(image.clone())).nan_to_num() for _ in range(2))
    if not torch.equal(again, expected):
        return True
    if not torch.equal(found.nan_to_num(), expected):
        return False
    parameters = [parameter for parameter in copied.parameters() if parameter.is_floating_point()]
    for parameter in parameters:
        parameter.data.fill_(float("nan"))
    spoiled = main_output(copied(image.clone()))
    unchanged = torch.equal(main_output(model(image.clone())).nan_to_num(), expected)
    return unchanged and not (parameters and spoiled.isfinite().all())


def not_copied(spec: ModelSpec) -> CheckpointError:
    """The error for a network whose copies are not its own; names what to do."""
    return CheckpointError(
        f"a copy of {spec.architecture} computes something else than the network: it keeps "
        "features by a hook or a function that belongs to the original. Keep them in attributes of "
        "the module that the hook is called with, or name a function that builds the network: "
        "--model package.module:function"
    )


def _built_again(model: nn.Module, spec: ModelSpec, _memo: dict[int, Any]) -> nn.Module:
    """Another network with the same weights, modes, place and conversion.

    Raises:
        CheckpointError: what builds it gives the same one again, or layers were changed since.
    """
    again = build_model(spec)
    if again is model or set(again.parameters()) & set(model.parameters()):
        raise not_copied(spec)
    try:
        again.load_state_dict(model.state_dict())
    except RuntimeError as error:
        raise CheckpointError(
            f"{spec.architecture} is built again for each copy, and layers of this one were "
            f"changed after it was built: {str(error).partition(chr(10))[0]}"
        ) from None
    for parameter in list(model.parameters())[:1]:
        again.to(parameter.device, parameter.dtype)
    for name, parameter in again.named_parameters():
        parameter.requires_grad_(model.get_parameter(name).requires_grad)
    for name, module in again.named_modules():
        module.training = model.get_submodule(name).training
    for conversion in model._forward_hooks.values():
        if isinstance(conversion, Conversion):
            again.register_forward_hook(conversion)
    again.__deepcopy__ = partial(_built_again, again, spec)  # type: ignore[assignment]
    return again
