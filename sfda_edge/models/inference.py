"""From images to class probabilities: the one way of adaptation, evaluation and export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfda_edge.errors import CheckpointError
from sfda_edge.models.spec import ModelSpec


def main_output(output: Any) -> Tensor:
    """A network's logits, from the forms in which the ecosystem's networks return them.

    A tensor; an object with ``logits`` (Hugging Face); a mapping with ``out`` (torchvision) or
    ``logits``; a tuple or list whose first element is the main output, as of networks with
    auxiliary heads.

    Raises:
        CheckpointError: anything else; names the type.
    """
    found = output
    if not isinstance(output, Tensor):
        found = getattr(output, "logits", None)
        if found is None and isinstance(output, Mapping):
            found = output.get("out", output.get("logits"))
        if found is None and isinstance(output, list | tuple) and output:
            found = output[0]
    if isinstance(found, Tensor):
        return found
    holds = f" with {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
    raise CheckpointError(
        f"the network returned {type(output).__name__}{holds}; expected a tensor of logits, a dict "
        "with 'out', an object with .logits, or a tuple or list that begins with the logits"
    )


# ITU-R BT.601, as Pillow and OpenCV make grey of red, green and blue.
_GREY = (0.299, 0.587, 0.114)


class Normalise(nn.Module):
    """uint8 or [0, 255] images (N, 3, H, W) → the network's input, (N, 3 or 1, H, W)."""

    scale: Tensor
    offset: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        self.bgr, self.grey = spec.bgr, spec.num_channels == 1
        # One multiplication and one addition; 1/255 and the division by std are folded in.
        share = torch.tensor(_GREY) if self.grey else torch.ones(3)
        self.register_buffer("scale", (share / (255 * std)).view(1, 3, 1, 1))
        self.register_buffer("offset", (-mean / std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        scaled = images.float() * self.scale
        if self.grey:
            return scaled.sum(1, keepdim=True) + self.offset
        normalised = scaled + self.offset
        return normalised.flip(1) if self.bgr else normalised


def enlarged(logits: Tensor, size_hw: Sequence[int]) -> Tensor:
    """Logits (N, C, h, w) at ``size_hw``: many networks leave the last upsampling to the caller."""
    if tuple(logits.shape[2:]) == tuple(size_hw):
        return logits
    return functional.interpolate(logits, tuple(size_hw), mode="bilinear", align_corners=False)


def class_matrix(spec: ModelSpec) -> Tensor | None:
    """The class map as (target classes, source classes), or None without a map."""
    if spec.class_map is None:
        return None
    return torch.tensor(spec.class_map.matrix(spec.label_space.num_classes))


def mapped_probabilities(logits: Tensor, matrix: Tensor | None) -> Tensor:
    """Logits (N, C, H, W) → probabilities of the output classes, (N, C', H, W)."""
    probabilities = logits.softmax(1)
    if matrix is None:
        return probabilities
    return torch.einsum("ts,nshw->nthw", matrix, probabilities)
