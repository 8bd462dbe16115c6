"""TestTimeEnsemble: one network's mean prediction over several input sizes and flips.

Test-time augmentation. The same weights are more accurate at a resolution that the device cannot
afford, or at one that matches the target's camera, and when mirrored predictions are averaged in.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfda_edge.batchnorm.layers import batchnorm_layers
from sfda_edge.batchnorm.statistics import TargetStatistics, target_statistics
from sfda_edge.models import architecture
from sfda_edge.runs.distributed import averaged
from sfda_edge.task import AdaptationTask

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class View:
    """One way to feed an image to a network.

    Attributes:
        size_hw: the size that it is resized to.
        target_share: share of the target in the BatchNorm statistics, in [0, 1].
        mirrored: the network gets the mirror image; its prediction is mirrored back.
    """

    size_hw: tuple[int, int]
    target_share: float
    mirrored: bool = False


def view_sizes(task: AdaptationTask, scales: Sequence[float]) -> list[tuple[int, int]]:
    """The input size times each scale, in multiples that the network takes; each size once."""
    if set(scales) == {1.0}:
        return [task.spec.input_hw]
    unit = _size_unit(task)

    def scaled(side: int, scale: float) -> int:
        return max(1, round(scale * side / unit)) * unit if scale != 1 else side

    height, width = task.spec.input_hw
    return list(dict.fromkeys((scaled(height, scale), scaled(width, scale)) for scale in scales))


def _size_unit(task: AdaptationTask) -> int:
    """The architecture's, or twice that as often as the network rejects what is no multiple."""
    found = architecture(task.spec.architecture)
    unit = max(found.view_unit, found.stride)
    height, width = task.spec.input_hw
    while not (height % (2 * unit) or width % (2 * unit)):
        taken = _is_taken(task, (height + unit, width + unit))
        if averaged({"taken": float(taken)})["taken"] == 1:  # of all processes alike
            return unit
        logger.info(
            "views: the network rejects multiples of %d; sizes will be of %d", unit, 2 * unit
        )
        unit *= 2
    return unit


@torch.no_grad()
def _is_taken(task: AdaptationTask, size_hw: tuple[int, int]) -> bool:
    blank = torch.zeros(1, 3, *size_hw, dtype=torch.uint8)
    try:
        task.logits(task.model, task.inputs(blank))
    except Exception:  # of a user's network; they have no common base
        return False
    return True


SizeStatistics = dict[tuple[int, int], TargetStatistics]


class TestTimeEnsemble:
    """The mean of one network's predictions over views.

    Args:
        task: the target.
        model: the network; it is copied for every size and share.
        views: at least one.
        statistics: of the network's BatchNorm inputs on the target at each size, as far as they are
            known; those that are missing are observed and added.
    """

    __test__ = False  # its name begins as pytest's classes do

    def __init__(
        self,
        task: AdaptationTask,
        model: nn.Module,
        views: Sequence[View],
        statistics: SizeStatistics | None = None,
    ) -> None:
        self.task, self.views = task, tuple(views)
        self._statistics = {} if statistics is None else statistics
        self._networks = {view: self._with_statistics(model, view) for view in map(plain, views)}

    def _with_statistics(self, model: nn.Module, view: View) -> nn.Module:
        network = copy.deepcopy(model).eval()
        if view.target_share and batchnorm_layers(network):
            if view.size_hw not in self._statistics:
                self._statistics[view.size_hw] = self._observed(network, view.size_hw)
            self._statistics[view.size_hw].mix_into(network, view.target_share)
        return network

    def _observed(self, network: nn.Module, size_hw: tuple[int, int]) -> TargetStatistics:
        config = self.task.selection
        batches = self.task.spread_batches(config.probe_images, config.probe_batch_size, size_hw)
        return target_statistics(network, batches)

    def probabilities(self, indices: Sequence[int], out_hw: tuple[int, int]) -> Tensor:
        """Mean class probabilities of target images, (N, C, h, w) float32."""
        return torch.stack(self.of_each_view(indices, out_hw)).mean(0)

    def of_each_view(self, indices: Sequence[int], out_hw: tuple[int, int]) -> list[Tensor]:
        """Class probabilities of target images in each view, (N, C, h, w) float32.

        Images are read once for all views of a size.
        """
        task = self.task
        sizes = dict.fromkeys(view.size_hw for view in self.views)
        inputs = {hw: task.inputs(task.target.images(indices, hw)) for hw in sizes}
        return [self._of_view(view, inputs[view.size_hw], out_hw) for view in self.views]

    @torch.no_grad()
    def _of_view(self, view: View, images: Tensor, out_hw: tuple[int, int]) -> Tensor:
        task, network = self.task, self._networks[plain(view)]
        # A copy either way: some networks change their input, which the next view gets.
        logits = task.logits(network, images.flip(3) if view.mirrored else images.clone())
        found = _resized(task.probabilities(logits), out_hw)
        return found.flip(3) if view.mirrored else found


def plain(view: View) -> View:
    """The same view without the mirror."""
    return replace(view, mirrored=False)


def _resized(probabilities: Tensor, size_hw: tuple[int, int]) -> Tensor:
    if probabilities.shape[-2:] == size_hw:
        return probabilities
    return functional.interpolate(
        probabilities, size_hw, mode="bilinear", align_corners=False, antialias=True
    )
