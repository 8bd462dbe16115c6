"""DeployModel: everything from camera pixels to label map, as one graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.errors import ExportError
from export.graph.health import HealthVector
from export.graph.upsampling import SplitNetwork
from sfda_edge.models import ModelSpec
from sfda_edge.models.inference import Normalise, class_matrix


@dataclass(frozen=True)
class Outputs:
    """The outputs of a graph.

    Attributes:
        argmax: ``full`` enlarges the logits and takes the most likely class of each pixel;
            ``coarse`` takes it on the network's own grid and enlarges the labels, which is faster
            and coarser at borders.
        confidence: also the label's probability, as a map.
        health: also drift figures, which change when the scene does.
    """

    argmax: Literal["full", "coarse"] = "full"
    confidence: bool = False
    health: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        asked = {"label_map": True, "confidence": self.confidence, "health": self.health}
        return tuple(name for name, wanted in asked.items() if wanted)


FULL_LABEL_MAP = Outputs()


class DeployModel(nn.Module):
    """uint8 RGB images (N, H, W, 3) at the input size → a tuple of the ``outputs``.

    - label maps (N, H, W) uint8;
    - confidence (N, H, W) uint8: 255 times the probability of the label;
    - health (N, K) float32: see ``HealthVector``.

    Normalising, the network with its upsampling, the class map and the arg-max are all inside, so
    that a device has nothing to get wrong. The cast comes first: TensorRT demands it of uint8.

    Raises:
        ExportError: coarse labels of a network that does not end with an upsampling.
    """

    class_kernel: Tensor

    def __init__(
        self, model: nn.Module, spec: ModelSpec, outputs: Outputs = FULL_LABEL_MAP
    ) -> None:
        super().__init__()
        self.outputs = outputs
        self.normalise = Normalise(spec)
        matrix = class_matrix(spec)
        self.mapped = matrix is not None
        if matrix is not None:
            self.register_buffer("class_kernel", matrix[:, :, None, None])
        noise = torch.rand(1, 3, *spec.input_hw, generator=torch.Generator().manual_seed(0))
        example = self.normalise(255 * noise)
        self.network = SplitNetwork(model, example)
        if outputs.argmax == "coarse" and not self.network.enlarges:
            raise ExportError(
                f"{spec.architecture} does not end with an upsampling, so it has no coarse grid to "
                "take labels on; leave out --argmax coarse"
            )
        self.health = HealthVector(model, spec, example) if outputs.health else None

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        inputs = self.normalise(images.float().permute(0, 3, 1, 2))
        if self.health is None:
            return self._maps(self.network.coarse(inputs))
        with self.health.listening() as channel_means:
            logits = self.network.coarse(inputs)
        probabilities = self._probabilities(self.health.sampled(logits))
        return *self._maps(logits), self.health(probabilities, channel_means)

    def _maps(self, logits: Tensor) -> tuple[Tensor, ...]:
        """Label map and, when asked for, confidence."""
        coarse = self.outputs.argmax == "coarse"
        if not coarse:
            logits = self.network.enlarge(logits)
        scores = self._scores(logits)
        maps = [scores.argmax(1).int()]
        if self.outputs.confidence:
            # The label's probability is its share of the sum.
            total = _relative(logits).sum(1)
            best = scores.amax(1) if self.mapped else 1.0
            maps.append((255 * best / total).round().int())
        if coarse:
            maps = [self.network.enlarge_nearest(one) for one in maps]
        return tuple(one.to(torch.uint8) for one in maps)

    def _scores(self, logits: Tensor) -> Tensor:
        """Numbers whose largest is the predicted class.

        A class map sums probabilities. Their common denominator does not change which is largest,
        so the softmax is left out; a 1x1 convolution does the sums.
        """
        if not self.mapped:
            return logits
        return functional.conv2d(_relative(logits), self.class_kernel)

    def _probabilities(self, logits: Tensor) -> Tensor:
        relative = _relative(logits)
        scores = functional.conv2d(relative, self.class_kernel) if self.mapped else relative
        return scores / relative.sum(1, keepdim=True)


def _relative(logits: Tensor) -> Tensor:
    """Probabilities up to a factor a pixel; the most likely output's is 1."""
    return (logits - logits.amax(1, keepdim=True)).exp()
