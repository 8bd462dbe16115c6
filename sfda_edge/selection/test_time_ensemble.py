"""A teacher that looks at each target image in several ways and averages what it sees.

The same weights see far more at a resolution that the device cannot afford, at the resolution that
fits the target's camera, and in the mirror. What they agree on is worth teaching to a student at
the deployment size.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfda_edge.adaptation.task import AdaptationTask
from sfda_edge.batchnorm.statistics import batchnorm_layers, target_statistics
from sfda_edge.models import architecture

STATISTICS_IMAGES, STATISTICS_BATCH = 16, 8


@dataclass(frozen=True)
class View:
    """One way of looking at an image.

    Attributes:
        size_hw: what it is resized to.
        target_share: of the target in the BatchNorm statistics.
        mirrored: the network sees the mirror image; its answer is mirrored back.
    """

    size_hw: tuple[int, int]
    target_share: float
    mirrored: bool = False


def view_size(task: AdaptationTask, scale: float) -> tuple[int, int]:
    """The input size times ``scale``, in multiples that the network takes."""
    found = architecture(task.spec.architecture)
    unit = max(found.view_unit, found.stride)
    height, width = (max(1, round(scale * side / unit)) * unit for side in task.spec.input_hw)
    return (height, width) if scale != 1 else task.spec.input_hw


class Teacher:
    """One network's average over views.

    Args:
        task: the target.
        model: the network; it is copied for every size and share.
        views: at least one.
    """

    def __init__(self, task: AdaptationTask, model: nn.Module, views: Sequence[View]) -> None:
        self.task, self.views = task, tuple(views)
        self._networks = {
            unmirrored(view): self._seen_by(model, view) for view in map(unmirrored, views)
        }

    def _seen_by(self, model: nn.Module, view: View) -> nn.Module:
        network = copy.deepcopy(model).eval()
        if view.target_share and batchnorm_layers(network):
            batches = self.task.target_batches(STATISTICS_IMAGES, STATISTICS_BATCH, view.size_hw)
            target_statistics(network, batches).mix_into(network, view.target_share)
        return network

    def probabilities(self, indices: Sequence[int], out_hw: tuple[int, int]) -> Tensor:
        """Mean class probabilities of target images, (N, C, h, w) float32."""
        seen = [self._seen_in(view, indices, out_hw) for view in self.views]
        return torch.stack(seen).mean(0)

    @torch.no_grad()
    def _seen_in(self, view: View, indices: Sequence[int], out_hw: tuple[int, int]) -> Tensor:
        task, network = self.task, self._networks[unmirrored(view)]
        images = task.inputs(task.target.images(indices, view.size_hw))
        logits = task.logits(network, images.flip(3) if view.mirrored else images)
        seen = _resized(task.probabilities(logits), out_hw)
        return seen.flip(3) if view.mirrored else seen


def unmirrored(view: View) -> View:
    """The same view, not in the mirror."""
    return replace(view, mirrored=False)


def _resized(probabilities: Tensor, size_hw: tuple[int, int]) -> Tensor:
    if probabilities.shape[-2:] == size_hw:
        return probabilities
    return functional.interpolate(
        probabilities, size_hw, mode="bilinear", align_corners=False, antialias=True
    )
