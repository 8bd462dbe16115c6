"""What a user's network returns, as logits of all classes.

Networks end with a softmax or a sigmoid, or have one output for two classes: seen from what they
return, and turned into logits of the classes by a hook, so that weights keep their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sfda_edge.batchnorm.layers import batch_normalisation, batchnorm_layers
from sfda_edge.errors import CheckpointError, line_of
from sfda_edge.models.inference import main_output
from sfda_edge.models.spec import ModelSpec

_LIKELY_UNIT = 64  # sizes in multiples of it suit nearly all networks
_LEAST_PROBABILITY = 1e-7  # about half of what float32 has beside 1


def checked_output(model: nn.Module, spec: ModelSpec, image: Tensor) -> Tensor:
    """What the network returns for an image, with an output for each class, or one of two.

    Raises:
        CheckpointError: it raises, or returns something else.
    """
    channels, classes = spec.num_channels, spec.label_space.num_classes
    height, width = spec.input_hw
    try:
        output = main_output(model(image.clone()))
    except CheckpointError:
        raise
    except Exception as error:  # of a user's network; they have no common base
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{spec.architecture} does not take (1, {channels}, {height}, {width}): {reason}"
            f"{_advice(model, image, reason)}{line_of(error)}"
        ) from None
    counts = {classes, 1} if classes == 2 else {classes}
    if output.ndim != 4 or output.shape[0] != 1 or output.shape[1] not in counts:
        raise CheckpointError(
            f"{spec.architecture} returned {tuple(output.shape)}; logits (1, {classes}, h, w) are "
            "needed, one for each of the classes of --label-space (one for both of two classes)"
        )
    return output


def _advice(model: nn.Module, image: Tensor, reason: str) -> str:
    """What to change, where it can be told."""
    if "channels" in reason:
        return (
            ". A network of 1 channel needs one value of --mean and --std; one of 4 or more cannot "
            "be given images from cameras and files, which have red, green and blue"
        )
    height, width = (side + -side % _LIKELY_UNIT for side in image.shape[2:])
    if (height, width) == tuple(image.shape[2:]):
        return ""
    try:
        model(image.new_zeros((*image.shape[:2], height, width)))
    except Exception:  # of a user's network, or no memory: then the size is not all
        return ""
    return f". It takes {width}x{height}: give a --size in multiples of {_LIKELY_UNIT}"


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A forward hook: a network's outputs → logits of all classes (N, C, H, W).

    Attributes:
        single: there is one output, for the second of two classes.
        probabilities: outputs are probabilities, each in [0, 1].
    """

    single: bool
    probabilities: bool

    def __call__(self, _model: nn.Module, _inputs: Any, output: Any) -> Tensor:
        """Of a binary logit z: 0 and z; of probabilities: their logarithms."""
        found = main_output(output)
        if self.single:
            first = 1 - found if self.probabilities else torch.zeros_like(found)
            found = torch.cat([first, found], 1)
        return found.clamp_min(_LEAST_PROBABILITY).log() if self.probabilities else found

    def text(self) -> str:
        """What the network returns."""
        what = "probabilities" if self.probabilities else "logits"
        return f"{what} of the second class alone" if self.single else what


def find_conversion(
    model: nn.Module, spec: ModelSpec, output: Tensor, images: Sequence[Tensor]
) -> Conversion | None:
    """How the network's outputs become logits; None where they are.

    Args:
        model: the network.
        spec: of it.
        output: of the first image; the others are looked at only if it may be probabilities.
        images: to look at.
    """
    single = output.shape[1] < spec.label_space.num_classes
    layers = batchnorm_layers(model)
    if layers and not output.isfinite().all():
        with batch_normalisation(model, layers):  # the stored statistics are damaged
            probabilities = _gives_probabilities(model, spec, images)
    else:
        probabilities = _are_probabilities(output) and _gives_probabilities(model, spec, images[1:])
    if not single and not probabilities:
        return None
    return Conversion(single=single, probabilities=probabilities)


def _gives_probabilities(model: nn.Module, spec: ModelSpec, images: Sequence[Tensor]) -> bool:
    return all(_are_probabilities(checked_output(model, spec, image)) for image in images)


def _are_probabilities(output: Tensor) -> bool:
    """Whether all are in [0, 1]; a head that was never trained is constant, and says nothing."""
    return bool(((output >= 0) & (output <= 1)).all()) and bool(output.max() > output.min())


def returns_probabilities(model: nn.Module) -> bool:
    """Whether a network's own outputs are probabilities, which a hook turns into logits."""
    hooks = model._forward_hooks.values()
    return any(isinstance(hook, Conversion) and hook.probabilities for hook in hooks)
