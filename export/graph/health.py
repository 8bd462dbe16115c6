"""The health vector: figures of a frame that move when what the camera sees does."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sfda_edge.batchnorm.layers import Layers, batchnorm_layers
from sfda_edge.models import ModelSpec
from sfda_edge.training.losses import entropy_map

NUM_LAYERS = 4
LOW_CONFIDENCE = 0.5
# Statistics need no more pixels than a quarter of the input's sides.
_FINEST = 4


class HealthVector(nn.Module):
    """Class probabilities and channel means of frames → (N, K) float32.

    In the order of ``layout``, which gives the number of values of each part:

    - ``mean_entropy``: of the class probabilities, 0 to 1 (divided by log C);
    - ``low_confidence_share``: of pixels whose most likely class is below ``LOW_CONFIDENCE``;
    - ``class_histogram``: share of pixels of each class, summing to 1;
    - ``channel_means LAYER``: means over the frame of what ``NUM_LAYERS`` BatchNorm layers answer,
      spread from first to last. On data like the model's own they lie around the layer's shift.

    A network without BatchNorm has the first three alone.

    Args:
        model: in evaluation mode.
        spec: of the model.
        example: an input of it.
    """

    def __init__(self, model: nn.Module, spec: ModelSpec, example: Tensor) -> None:
        super().__init__()
        self.num_classes = spec.output_space.num_classes
        self.finest_hw = spec.input_hw[0] // _FINEST, spec.input_hw[1] // _FINEST
        self._layers = _spread_layers(model, example)
        self.layout = {
            "mean_entropy": 1,
            "low_confidence_share": 1,
            "class_histogram": self.num_classes,
        }
        for name, layer in self._layers.items():
            self.layout[f"channel_means {name}"] = layer.num_features

    @contextlib.contextmanager
    def listening(self) -> Iterator[dict[nn.Module, Tensor]]:
        """Collect the chosen layers' channel means, each (N, C), while the network runs.

        Of a layer that runs several times, the first is taken.
        """
        means: dict[nn.Module, Tensor] = {}

        def note(layer: nn.Module, _inputs: object, output: Tensor) -> None:
            if layer not in means:
                means[layer] = output.mean((2, 3))

        hooks = [layer.register_forward_hook(note) for layer in self._layers.values()]
        try:
            yield means
        finally:
            for hook in hooks:
                hook.remove()

    def sampled(self, logits: Tensor) -> Tensor:
        """Every n-th pixel of logits that are finer than statistics need."""
        steps = [
            max(1, side // max(1, enough))
            for side, enough in zip(logits.shape[2:], self.finest_hw, strict=True)
        ]
        return logits[:, :, :: steps[0], :: steps[1]]

    def forward(self, probabilities: Tensor, channel_means: dict[nn.Module, Tensor]) -> Tensor:
        in_order = [channel_means[layer] for layer in self._layers.values()]
        entropy = entropy_map(probabilities).mean((1, 2)) / math.log(self.num_classes)
        highest = probabilities.amax(1, keepdim=True)
        low = (highest < LOW_CONFIDENCE).float().mean((1, 2, 3))
        votes = (probabilities == highest).float()
        histogram = votes.mean((2, 3)) / votes.sum(1).mean((1, 2))[:, None]
        return torch.cat([entropy[:, None], low[:, None], histogram, *in_order], dim=1)


@torch.no_grad()
def _spread_layers(model: nn.Module, example: Tensor) -> Layers:
    """``NUM_LAYERS`` of the BatchNorm layers that see maps, in the order in which they run."""
    order: Layers = {}

    def hook(name: str, layer: _BatchNorm):
        def note(_layer: nn.Module, _inputs: object, output: Tensor) -> None:
            if output.ndim == 4:
                order[name] = layer

        return note

    layers = batchnorm_layers(model)
    hooks = [layer.register_forward_hook(hook(name, layer)) for name, layer in layers.items()]
    try:
        model(example)
    finally:
        for handle in hooks:
            handle.remove()
    names = list(order)
    if len(names) > NUM_LAYERS:
        last = len(names) - 1
        names = [names[round(i * last / (NUM_LAYERS - 1))] for i in range(NUM_LAYERS)]
    return {name: order[name] for name in names}
