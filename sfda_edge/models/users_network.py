"""A user's network: checked, and made usable as it is.

Networks end with a softmax or a sigmoid, or have one output for two classes: seen from what they
return, and turned into logits of the classes by a hook, so that weights keep their names. And some
keep features by a hook or a closure over themselves: their deep copies read, or write, what belongs
to the original. Those are built again where others are copied.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sfda_edge.batchnorm.layers import batch_normalisation, batchnorm_layers
from sfda_edge.errors import CheckpointError, line_of
from sfda_edge.models.build import build_model, require_possible_input
from sfda_edge.models.inference import main_output
from sfda_edge.models.spec import PYTHON, ModelSpec

logger = logging.getLogger(__name__)
_LEAST_PROBABILITY = 1e-7  # about half of what float32 has beside 1


@torch.no_grad()  # not inference mode: what a network keeps for later could not be trained through
def make_usable(model: nn.Module, spec: ModelSpec) -> None:
    """Run a user's network on a few inputs; make it return logits, and its copies its own.

    Args:
        model: in evaluation mode; gets a hook where it does not return logits of all classes.
        spec: of the network.

    Raises:
        CheckpointError: it does not take what frames consist of, returns something else, or not the
            same each time, or cannot be copied.
    """
    require_possible_input(spec)
    noise, *others = _probes(spec)
    with _ModuleOutputs(model) as before:
        output = _output(model, spec, noise)
    with _ModuleOutputs(model) as after:
        model(noise.clone())
    if random := before.first_different(after):
        raise CheckpointError(
            f"{spec.architecture} is not deterministic: module '{random}' returned something else "
            "for the same image, in evaluation mode. Dropout must follow the training flag: "
            "dropout(x, p, training=self.training)"
        )
    if conversion := _conversion(model, spec, output, (noise, *others)):
        logger.info("%s returns %s; they become logits", spec.architecture, conversion.text())
        model.register_forward_hook(conversion)
    model(noise.clone())
    _make_copies_whole(model, spec, others[0])


def own_copy(network: nn.Module, spec: ModelSpec) -> nn.Module:
    """A copy of the caller's network, in evaluation mode on the CPU, which adapting may change.

    The caller's network runs on noise a few times, in evaluation mode, and is then as it was.

    Raises:
        CheckpointError: the copy is not one of its own.
    """
    modes = {module: module.training for module in network.modules()}
    place = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    noise, other, _ = (image.to(place) for image in _probes(spec))
    try:
        network.eval()
        with torch.no_grad():
            network(noise)
            whole = _is_whole(copy.deepcopy(network), network, other)
    except Exception:  # of a user's network; make_usable says what is wrong
        whole = True
    finally:
        for module, training in modes.items():
            module.training = training
    if not whole:
        raise _not_copied(spec)
    return copy.deepcopy(network).cpu().eval()


def _probes(spec: ModelSpec) -> list[Tensor]:
    """Noise of several strengths: logits of one of them are negative, or above 1, somewhere."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, spec.num_channels, *spec.input_hw)
    noise = torch.rand(shape, generator=generator)
    return [noise, 4 * torch.randn(shape, generator=generator), -noise]


def _output(model: nn.Module, spec: ModelSpec, image: Tensor) -> Tensor:
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
            f"{spec.architecture} does not take (1, {channels}, {height}, {width}): {reason}. A "
            "network of 1 channel needs one value of --mean and --std; one of 4 or more cannot be "
            f"given images from cameras and files, which have red, green and blue{line_of(error)}"
        ) from None
    counts = {classes, 1} if classes == 2 else {classes}
    if output.ndim != 4 or output.shape[0] != 1 or output.shape[1] not in counts:
        raise CheckpointError(
            f"{spec.architecture} returned {tuple(output.shape)}; logits (1, {classes}, h, w) are "
            "needed, one for each of the classes of --label-space (one for both of two classes)"
        )
    return output


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


def _conversion(
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
    return all(_are_probabilities(_output(model, spec, image)) for image in images)


def _are_probabilities(output: Tensor) -> bool:
    """Whether all are in [0, 1]; a head that was never trained is constant, and says nothing."""
    return bool(((output >= 0) & (output <= 1)).all()) and bool(output.max() > output.min())


def returns_probabilities(model: nn.Module) -> bool:
    """Whether a network's own outputs are probabilities, which a hook turns into logits."""
    hooks = model._forward_hooks.values()
    return any(isinstance(hook, Conversion) and hook.probabilities for hook in hooks)


def _make_copies_whole(model: nn.Module, spec: ModelSpec, image: Tensor) -> None:
    """Have ``copy.deepcopy`` build the network again where a plain copy is not one of its own.

    Args:
        model: has seen another image last.
        spec: of the network.
        image: to compare with.

    Raises:
        CheckpointError: it cannot be built again.
    """
    if _is_whole(copy.deepcopy(model), model, image):
        return
    if spec.architecture.startswith(PYTHON):
        raise _not_copied(spec)
    logger.info(
        "copies of %s compute something else, since it keeps features outside its modules; it is "
        "built again for each",
        spec.architecture,
    )
    # What copy.deepcopy looks for first, also on an instance.
    model.__deepcopy__ = partial(_built_again, model, spec)  # type: ignore[assignment]
    if not _is_whole(copy.deepcopy(model), model, image):
        raise _not_copied(spec)


def _is_whole(copied: nn.Module, model: nn.Module, image: Tensor) -> bool:
    """Whether a copy computes what the network does, with weights of its own.

    Args:
        copied: is spoiled.
        model: has seen another image last; one that is not deterministic counts as copied.
        image: to compare with.
    """
    try:
        found = main_output(copied(image.clone()))
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


def _not_copied(spec: ModelSpec) -> CheckpointError:
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
        raise _not_copied(spec)
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


class _ModuleOutputs:
    """The tensors that a network's modules return, by name, in the order in which they finish."""

    def __init__(self, model: nn.Module) -> None:
        self._model, self.found = model, dict[str, Tensor]()

    def __enter__(self) -> _ModuleOutputs:
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

    def first_different(self, other: _ModuleOutputs) -> str | None:
        """The first module whose output is not exactly the other's; None where all are."""
        for name, output in self.found.items():
            if name in other.found and not torch.equal(
                output.nan_to_num(), other.found[name].nan_to_num()
            ):
                return name
        return None
