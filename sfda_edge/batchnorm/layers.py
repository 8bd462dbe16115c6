"""BatchNorm layers: find them, read their statistics, and normalise by each batch's own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Layers = dict[str, _BatchNorm]


def batchnorm_layers(model: nn.Module) -> Layers:
    """The layers that keep running statistics, by name."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    }


class LocalBatchNorm(_BatchNorm):
    """BatchNorm of inputs of any rank, as SyncBatchNorm is, in one process."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Whatever has channels."""


def local_batchnorm(model: nn.Module) -> nn.Module:
    """The network with a local BatchNorm for each SyncBatchNorm; the same weights fit.

    A class of somebody's own that is derived from it stays: it may do more.

    In a data-parallel run SyncBatchNorm waits for all processes whenever it takes a batch's
    statistics, and works on GPUs only; here each process observes whole batches.
    """
    made: dict[nn.Module, nn.Module] = {}  # a layer may have several names
    for name, layer in list(model.named_modules(remove_duplicate=False)):
        if type(layer) is nn.SyncBatchNorm:
            if layer not in made:
                made[layer] = _local(layer)
            model.set_submodule(name, made[layer])
    return model


def _local(layer: nn.SyncBatchNorm) -> LocalBatchNorm:
    local = LocalBatchNorm(
        layer.num_features,
        eps=layer.eps,
        momentum=layer.momentum,
        affine=layer.affine,
        track_running_stats=layer.track_running_stats,
    )
    local.load_state_dict(layer.state_dict())
    for name, parameter in layer.named_parameters():
        local.get_parameter(name).requires_grad_(parameter.requires_grad)
    return local.train(layer.training)


def running_statistics(layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Running mean and variance of a layer of ``batchnorm_layers``, each (C,)."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return layer.running_mean, layer.running_var


def copy_running_statistics(of: nn.Module, to: nn.Module) -> None:
    """Give a network the running statistics of another of its kind."""
    layers = batchnorm_layers(of)
    for name, layer in batchnorm_layers(to).items():
        pairs = zip(running_statistics(layer), running_statistics(layers[name]), strict=True)
        for own, other in pairs:
            own.copy_(other)


@contextlib.contextmanager
def batch_normalisation(model: nn.Module, layers: Layers) -> Iterator[None]:
    """Normalise by each batch's own statistics, which the running ones hold meanwhile.

    Afterwards the layers are as they were.
    """
    kept = {
        name: [part.clone() for part in running_statistics(layer)] for name, layer in layers.items()
    }
    momenta = {name: layer.momentum for name, layer in layers.items()}
    counters = {name: layer.num_batches_tracked for name, layer in layers.items()}
    model.eval()
    for layer in layers.values():
        layer.train()
        for part in running_statistics(layer):
            part.zero_()  # NaN would stay NaN, even times 0
        layer.momentum, layer.num_batches_tracked = 1.0, None
    try:
        yield
    finally:
        model.eval()
        for name, layer in layers.items():
            layer.momentum, layer.num_batches_tracked = momenta[name], counters[name]
            for part, before in zip(running_statistics(layer), kept[name], strict=True):
                part.copy_(before)


@contextlib.contextmanager
def observing_inputs(layers: Layers, observe: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call ``observe`` with the name and the input (N, C, …) of every layer that has run."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda _layer, inputs, _output: observe(name, inputs[0])

    hooks = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()
