"""A user's network: checked, and made usable as it is."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch import Tensor, nn

from sfda_edge.errors import CheckpointError
from sfda_edge.models.build import require_possible_input
from sfda_edge.models.network_copies import is_whole, make_copies_whole, not_copied
from sfda_edge.models.network_outputs import checked_output, find_conversion
from sfda_edge.models.spec import ModelSpec

logger = logging.getLogger(__name__)


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
        output = checked_output(model, spec, noise)
    with _ModuleOutputs(model) as after:
        model(noise.clone())
    if random := before.first_different(after):
        raise CheckpointError(
            f"{spec.architecture} is not deterministic: module '{random}' returned something else "
            "for the same image, in evaluation mode. Dropout must follow the training flag: "
            "dropout(x, p, training=self.training)"
        )
    if conversion := find_conversion(model, spec, output, (noise, *others)):
        logger.info("%s returns %s; they become logits", spec.architecture, conversion.text())
        model.register_forward_hook(conversion)
    model(noise.clone())
    make_copies_whole(model, spec, others[0])


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
            whole = is_whole(copy.deepcopy(network), network, other)
    except Exception:  # of a user's network; make_usable says what is wrong
        whole = True
    finally:
        for module, training in modes.items():
            module.training = training
    if not whole:
        raise not_copied(spec)
    return copy.deepcopy(network).cpu().eval()


def _probes(spec: ModelSpec) -> list[Tensor]:
    """Noise of several strengths: logits of one of them are negative, or above 1, somewhere."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, spec.num_channels, *spec.input_hw)
    noise = torch.rand(shape, generator=generator)
    return [noise, 4 * torch.randn(shape, generator=generator), -noise]


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
