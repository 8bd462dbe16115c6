"""AdaptationTask: a source model, its specification, the target images and the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from sfda_edge.batchnorm.layers import batchnorm_layers
from sfda_edge.batchnorm.statistics import target_statistics
from sfda_edge.data.target import TargetImages
from sfda_edge.errors import RecipeError
from sfda_edge.models import ModelSpec, usable_memory_format
from sfda_edge.models.inference import (
    Normalise,
    class_matrix,
    enlarged,
    main_output,
    mapped_probabilities,
)
from sfda_edge.runs.distributed import local_share
from sfda_edge.runs.progress import Progress
from sfda_edge.selection.config import SelectionConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Bars = Callable[[str, int], Progress]


class AdaptationTask:
    """A source model, its specification, the target images and the device.

    Args:
        model: the source model; a method may change it in place.
        spec: what it expects and predicts.
        target: the images.
        fabric: device, precision and processes.
        seed: of everything random, in [0, 2^32).
        work_dir: for what a method needs again after a kill.
        bars: progress displays of long parts, by title and length.
        selection: constants of label-free selection.

    Raises:
        RecipeError: the seed is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: ModelSpec,
        target: TargetImages,
        *,
        fabric: Fabric,
        seed: int,
        work_dir: Path,
        bars: Bars,
        selection: SelectionConfig | None = None,
    ) -> None:
        if not 0 <= seed < 2**32:
            raise RecipeError(f"seed must be in [0, 2^32), got {seed}")
        self.spec, self.target, self.fabric = spec, target, fabric
        self.seed, self.work_dir, self.bars = seed, work_dir, bars
        self.selection = selection or SelectionConfig()
        self.device = fabric.device
        self.memory_format = usable_memory_format(model, spec)
        self.model = self.placed(model).eval()
        self.normalise = Normalise(spec).to(self.device)
        matrix = class_matrix(spec)
        self.matrix = None if matrix is None else matrix.to(self.device)

    def placed(self, network: nn.Module) -> nn.Module:
        """The network on the device, in the task's memory format."""
        return network.to(self.device).to(memory_format=self.memory_format)  # type: ignore[call-overload]

    def inputs(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), uint8 or floats in [0, 255] → the network's input on the device."""
        normalised = self.normalise(images.to(self.device, non_blocking=True))
        return normalised.contiguous(memory_format=self.memory_format)

    def coarse_logits(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """Input (N, C, H, W) → logits (N, C', h, w) on the network's own grid, float32."""
        with self.fabric.autocast():
            return main_output(network(inputs)).float()

    def logits(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """Input (N, C, H, W) → logits (N, C', H, W), float32."""
        return enlarged(self.coarse_logits(network, inputs), inputs.shape[2:])

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (N, C, H, W) → probabilities of the output classes (N, C', H, W), float32."""
        # Softmax over the channels of a channels-last tensor takes twice as long on a CPU.
        return mapped_probabilities(logits.float().contiguous(), self.matrix)

    @property
    def half_hw(self) -> tuple[int, int]:
        """Half the input size, at which probabilities are compared and stored."""
        height, width = self.spec.input_hw
        return max(1, height // 2), max(1, width // 2)

    def half_size(self, probabilities: Tensor) -> Tensor:
        """Probabilities (N, C, H, W) of any size at half the input size."""
        return functional.interpolate(probabilities, self.half_hw, mode="bilinear", antialias=True)

    @property
    def num_classes(self) -> int:
        """Number of output classes."""
        return self.spec.output_space.num_classes

    def mix_target_statistics(self, target_share: float) -> None:
        """Make ``target_share`` of the model's BatchNorm statistics the target's.

        Methods that train start from here. All but ``sfda`` keep the statistics: they train the
        network as it will be used, normalised by running statistics, so that a step does not depend
        on which images share its batch.
        """
        if target_share and batchnorm_layers(self.model):
            config = self.selection
            count, batch_size = config.statistics_images, config.statistics_batch_size
            statistics = target_statistics(self.model, self.spread_batches(count, batch_size))
            statistics.mix_into(self.model, target_share)

    def spread_batches(
        self, count: int, batch_size: int, size_hw: tuple[int, int] | None = None
    ) -> Iterator[Tensor]:
        """This process's share of ``count`` images spread over the target, as network inputs.

        At the input size by default.
        """
        for batch in local_share(self.even_batches(count, batch_size)):
            yield self.inputs(self.target.images(batch, size_hw))

    def even_batches(self, count: int, batch_size: int) -> list[list[int]]:
        """Indices of ``count`` images spread over the target, in batches.

        Of even size: some networks cannot take the statistics of a last one of a single image.
        """
        chosen = np.array(self.target.spread(count))
        parts = np.array_split(chosen, -(-len(chosen) // batch_size))
        return [part.tolist() for part in parts]
