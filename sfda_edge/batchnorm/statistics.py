"""BatchNorm statistics: find the layers, estimate them on the target, mix, check their health."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sfda_edge.errors import RecipeError
from sfda_edge.selection.diversity import diversity_left, effective_classes

Layers = dict[str, _BatchNorm]


def batchnorm_layers(model: nn.Module) -> Layers:
    """The layers that keep running statistics, by name."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    }


class LocalBatchNorm(_BatchNorm):
    """BatchNorm of inputs of any rank, as SyncBatchNorm is; of one process."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Whatever has channels."""


def local_batchnorm(model: nn.Module) -> nn.Module:
    """The network with a local BatchNorm for each SyncBatchNorm; the same weights fit.

    In a data-parallel run SyncBatchNorm waits for all processes whenever it takes a batch's
    statistics, and takes them on GPUs alone; here each process observes whole batches.
    """
    made: dict[nn.Module, nn.Module] = {}  # a layer may have several names
    for name, layer in list(model.named_modules(remove_duplicate=False)):
        if isinstance(layer, nn.SyncBatchNorm):
            if layer not in made:
                made[layer] = _local(layer)
            model.set_submodule(name, made[layer])
    return model


def _local(layer: nn.SyncBatchNorm) -> LocalBatchNorm:
    local = LocalBatchNorm(
        layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
    )
    local.load_state_dict(layer.state_dict())
    return local


def require_batchnorm(model: nn.Module, method: str) -> Layers:
    """The layers, for a method that cannot do without.

    Raises:
        RecipeError: there are none; names the methods that need none.
    """
    layers = batchnorm_layers(model)
    if not layers:
        raise RecipeError(
            f"method {method} needs BatchNorm layers with running statistics; the network has "
            "none. Methods that need none: default, maxsquare, selftrain"
        )
    return layers


def running_statistics(layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    """A layer's running mean and variance, each (C,); ``batchnorm_layers`` saw that it has them."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return layer.running_mean, layer.running_var


class ChannelMoments:
    """Mean and variance of each channel over everything seen: sums in double precision."""

    def __init__(self, channels: int, device: torch.device) -> None:
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.total = torch.zeros(channels, dtype=torch.float64, device=device)
        self.squares = torch.zeros(channels, dtype=torch.float64, device=device)

    def update(self, count: int, mean: Tensor, variance: Tensor) -> None:
        """Add ``count`` values a channel of this mean and variance (Bessel-corrected), (C,)."""
        mean, variance = mean.double(), variance.double() * (count - 1) / count
        self.count += count
        self.total += count * mean
        self.squares += count * (variance + mean.square())

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        """Each (C,), the variance without Bessel's correction."""
        mean = self.total / self.count
        return mean, (self.squares / self.count - mean.square()).clamp_min(0)


@contextlib.contextmanager
def batch_normalisation(model: nn.Module, layers: Layers) -> Iterator[None]:
    """Normalise by each batch's own statistics, which the running ones are meanwhile.

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
            part.zero_()  # what is not a number would stay so, even times 0
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
def watching(layers: Layers, watch: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Show ``watch`` the name and the input (N, C, …) of every layer when it has run."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda _layer, inputs, _answer: watch(name, inputs[0])

    hooks = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


class TargetStatistics:
    """The statistics of every layer's input on the target.

    Each batch is normalised by its own statistics while the moments are taken: under the source's,
    the layers behind a shifted one would be measured on inputs that the adapted network never sees.
    In a data-parallel run every process observes whole batches, so that all agree.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model, self.layers = model, batchnorm_layers(model)
        self.moments = {
            name: ChannelMoments(layer.num_features, running_statistics(layer)[0].device)
            for name, layer in self.layers.items()
        }

    @torch.no_grad()
    def observe(self, images: Tensor) -> None:
        """Forward one normalised batch (N, 3, H, W); the model itself stays as it is.

        The layers compute the batch's moments in any case; with momentum 1 they show them.
        """

        def take(name: str, features: Tensor) -> None:
            count = features.numel() // features.shape[1]
            self.moments[name].update(count, *running_statistics(self.layers[name]))

        try:
            with batch_normalisation(self.model, self.layers), watching(self.layers, take):
                self.model(images)
        except ValueError as error:
            if len(images) > 1:
                raise
            raise RecipeError(
                f"the network cannot take the statistics of a single image ({error}); make "
                "batch_size at least 2"
            ) from None

    def _seen(self) -> Layers:
        """The layers that ran; an auxiliary head of training alone does not."""
        return {name: self.layers[name] for name in self.layers if self.moments[name].count > 0}

    def shift(self) -> float:
        """How far the target's means are from the model's, in the model's standard deviations."""
        distances = [
            (mean - own_mean).abs() / own_variance.sqrt()
            for mean, _, own_mean, own_variance in self._beside_the_models()
        ]
        return torch.cat(distances).mean().item()

    def variance_factor(self) -> float:
        """By how many times the target's variances and the model's differ: geometric mean, ≥ 1."""
        logarithms = [
            (variance / own_variance).log().abs()
            for _, variance, _, own_variance in self._beside_the_models()
        ]
        return torch.cat(logarithms).mean().exp().item()

    def _beside_the_models(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Per layer, each (C,) float64: the target's mean and variance, then the model's."""
        for name, layer in self._seen().items():
            mean, variance = self.moments[name].mean_and_variance()
            own_mean, own_variance = (value.double() for value in running_statistics(layer))
            yield mean, variance + layer.eps, own_mean, own_variance + layer.eps

    @torch.no_grad()
    def mix_into(self, model: nn.Module, target_share: float) -> None:
        """Let ``model``'s statistics be ``target_share`` the target's; 0 changes nothing."""
        seen, layers = self._seen(), batchnorm_layers(model)
        for name in seen:
            layer = layers[name]
            mean, variance = self.moments[name].mean_and_variance()
            source_mean, source_variance = running_statistics(layer)
            for source, target in ((source_mean, mean), (source_variance, variance)):
                if target_share == 1:  # also where the source's are not numbers
                    source.copy_(target)
                else:
                    source.lerp_(target.to(source), target_share)

    def state(self) -> dict[str, Tensor]:
        """The sums of every layer."""
        return {
            f"{name}.{part}": getattr(moments, part)
            for name, moments in self.moments.items()
            for part in ("count", "total", "squares")
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over the sums of every layer."""
        for key, tensor in self.state().items():
            tensor.copy_(state[key])


def target_statistics(model: nn.Module, batches: Iterable[Tensor]) -> TargetStatistics:
    """Observe all of the normalised batches (N, 3, H, W)."""
    statistics = TargetStatistics(model)
    for batch in batches:
        statistics.observe(batch)
    return statistics


@dataclass(frozen=True)
class BatchNormHealth:
    """What the stored statistics are good for.

    Attributes:
        usable: False when the network talks nonsense with them and sense with the batch's own.
        classes_stored: effective number of classes in the answers with the stored statistics,
            exp(entropy of the class histogram): 1 is one class everywhere; 0 when not finite.
        classes_batch: the same with each batch's own statistics.
        shift: mean distance of the target's channel means, in stored standard deviations.
        variance_factor: by how many times the target's channel variances differ from the stored,
            geometric mean.
    """

    usable: bool
    classes_stored: float
    classes_batch: float
    shift: float
    variance_factor: float


# Few classes alone say nothing: a target may show nothing but road, and what each batch's own
# statistics make of that has five classes and is nonsense. But a layer's input hardly depends on
# what is seen while all layers before it are normalised batch by batch. Road alone, sky alone,
# night, dusk, another city: variances differ by 1.06 to 1.41 times, means by at most 0.08
# deviations (two networks, 14 targets). Statistics never updated, of another layer or of another
# scale: 2.5 to 31 times (9 such). benchmarks/results/adaptation.md has the figures.
_FOREIGN_VARIANCE_FACTOR = 2.0
_HOPELESS_SHIFT = 10.0
_LEAST_DIVERSITY = 0.65


@torch.no_grad()
def check_health(
    model: nn.Module, batches: list[Tensor], probabilities: Callable[[Tensor], Tensor]
) -> tuple[BatchNormHealth, TargetStatistics]:
    """Compare stored with batch statistics on a few normalised target batches.

    Args:
        model: has BatchNorm layers.
        batches: each (N, 3, H, W).
        probabilities: logits → class probabilities (N, C, H, W).

    Returns:
        the verdict, and the target's statistics, to repair with.
    """
    statistics = TargetStatistics(model)
    stored, batch_wise = [], []
    for images in batches:
        stored.append(_histogram(probabilities(model.eval()(images))))
        with batch_normalisation(model, statistics.layers):
            batch_wise.append(_histogram(probabilities(model(images))))
        statistics.observe(images)
    classes_stored = effective_classes(torch.stack(stored).mean(0))
    classes_batch = effective_classes(torch.stack(batch_wise).mean(0))
    shift, factor = statistics.shift(), statistics.variance_factor()
    foreign = not factor < _FOREIGN_VARIANCE_FACTOR  # also when it is no number
    few_classes = diversity_left(classes_stored, classes_batch) < _LEAST_DIVERSITY
    usable = not (foreign and few_classes) and shift < _HOPELESS_SHIFT
    return BatchNormHealth(usable, classes_stored, classes_batch, shift, factor), statistics


def _histogram(probabilities: Tensor) -> Tensor:
    """The share of each class in the arg-max answers (C,); NaN where the answers are not finite."""
    if not probabilities.isfinite().all():
        return torch.full((probabilities.shape[1],), float("nan"))
    labels = probabilities.max(1).indices.flatten()
    counts = torch.bincount(labels, minlength=probabilities.shape[1]).double()
    return (counts / counts.sum()).cpu()
