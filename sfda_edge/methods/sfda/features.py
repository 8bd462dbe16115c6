"""The layer whose features feed the attention: found by name, or the deepest encoder output."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfda_edge.errors import RecipeError
from sfda_edge.models import ModelSpec, architecture


@torch.no_grad()
def feature_layer(model: nn.Module, spec: ModelSpec) -> str:
    """The dotted name of the layer: the spec's, the architecture's own, or found by a forward pass.

    For a network that we do not know, it is the layer with the most channels among those of the
    coarsest resolution, and the last of these to run: the end of the encoder in what the field
    builds. Name another as ``feature_layer`` in ``model.json`` or with ``--feature-layer``.

    Raises:
        RecipeError: the network has no such layer, or none with spatial features.
    """
    name = spec.feature_layer or architecture(spec.architecture).feature_layer
    if name:
        if name not in dict(model.named_modules()):
            raise RecipeError(f"the network has no layer '{name}' (feature_layer)")
        if name not in _output_sizes(model, spec):
            raise RecipeError(f"layer '{name}' does not output features (N, C, H, W)")
        return name
    sizes = _output_sizes(model, spec)
    if not sizes:
        raise RecipeError("no layer of the network has spatial features (N, C, H, W)")
    coarsest = min(height * width for _, height, width in sizes.values())
    deepest = {
        name: channels
        for name, (channels, height, width) in sizes.items()
        if height * width == coarsest
    }
    most = max(deepest.values())
    return [name for name, channels in deepest.items() if channels == most][-1]


def _output_sizes(model: nn.Module, spec: ModelSpec) -> dict[str, tuple[int, int, int]]:
    """(C, H, W) of every layer's output in the order in which they finish; 1x1 maps left out."""
    sizes: dict[str, tuple[int, int, int]] = {}

    def note(name: str):
        def hook(_layer: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
                sizes[name] = (output.shape[1], output.shape[2], output.shape[3])

        return hook

    hooks = [m.register_forward_hook(note(name)) for name, m in model.named_modules() if name]
    try:
        parameter = next(model.parameters())
        frame = torch.zeros(1, spec.num_channels, *spec.input_hw, device=parameter.device)
        model.eval()(frame)
    finally:
        for hook in hooks:
            hook.remove()
    return sizes


# Attention compares every position with every other: 2048 of them are DeepLabV3's at 512x256.
MOST_POSITIONS = 2048


def pooled(features: Tensor) -> Tensor:
    """Features (N, C, H, W), halved until attention maps over their positions fit in memory."""
    while features.shape[2] * features.shape[3] > MOST_POSITIONS:
        features = functional.avg_pool2d(features, 2, ceil_mode=True)
    return features


class FeatureTap:
    """Keeps what one layer answered last.

    The hook stays for the network's life: ``torch.compile`` does not notice hooks that come and go.
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        self.features: Tensor | None = None
        model.get_submodule(name).register_forward_hook(self._keep)

    def _keep(self, _layer: nn.Module, _inputs: object, output: Tensor) -> None:
        self.features = output

    def take(self) -> Tensor:
        """The features (N, C, H, W) of the last pass, in float32, and forget them."""
        assert self.features is not None, "the network ran without its feature layer"
        features, self.features = self.features, None
        return pooled(features.float())
