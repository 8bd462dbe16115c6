"""DeployModel: the whole way from camera pixels to label map, as one graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfda_edge.inference import Normalise, class_matrix
from sfda_edge.models import ModelSpec


class DeployModel(nn.Module):
    """uint8 RGB images (N, H, W, 3) at the input size → uint8 label maps (N, H, W).

    Normalising, the network with its upsampling, the class map and the arg-max are all inside, so
    that a device has nothing to get wrong. The cast comes first: TensorRT demands it of uint8.
    """

    class_kernel: Tensor

    def __init__(self, model: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.normalise = Normalise(spec)
        self.model = model
        matrix = class_matrix(spec)
        self.mapped = matrix is not None
        if matrix is not None:
            self.register_buffer("class_kernel", matrix[:, :, None, None])

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(self.normalise(images.float().permute(0, 3, 1, 2)))
        return self._scores(logits).argmax(1).to(torch.uint8)

    def _scores(self, logits: Tensor) -> Tensor:
        """Numbers whose largest is the answer's class.

        A class map sums probabilities. Their common denominator does not change which is largest,
        so the softmax is left out; a 1x1 convolution does the sums.
        """
        if not self.mapped:
            return logits
        relative = (logits - logits.amax(1, keepdim=True)).exp()
        return functional.conv2d(relative, self.class_kernel)
