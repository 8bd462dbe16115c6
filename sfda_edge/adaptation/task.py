"""AdaptationTask: a source model, what is known of it, and the target images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional

from sfda_edge.batchnorm.statistics import batchnorm_layers, target_statistics
from sfda_edge.data.loading import Progress
from sfda_edge.data.target import TargetImages
from sfda_edge.errors import RecipeError
from sfda_edge.models import ModelSpec
from sfda_edge.models.inference import Normalise, class_matrix, enlarged, mapped_probabilities

Bars = Callable[[str, int], Progress]


class AdaptationTask:
    """A source model, what is known of it, and the target images.

    Args:
        model: the source model; a method may change it in place.
        spec: what it expects and answers.
        target: the images.
        fabric: device, precision and processes.
        seed: of everything random.
        work_dir: for what a method wants to find again after a kill.
        bars: progress displays for long parts, by title and length.

    Raises:
        RecipeError: the seed is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: ModelSpec,
        target: TargetImages,
        fabric: Fabric,
        seed: int,
        work_dir: Path,
        bars: Bars,
    ) -> None:
        if not 0 <= seed < 2**32:
            raise RecipeError(f"seed must be in [0, 2^32), got {seed}")
        self.spec, self.target, self.fabric = spec, target, fabric
        self.seed, self.work_dir, self.bars = seed, work_dir, bars
        self.device = fabric.device
        self.model = self.placed(model).eval()
        self.normalise = Normalise(spec).to(self.device)
        matrix = class_matrix(spec)
        self.matrix = None if matrix is None else matrix.to(self.device)

    def placed(self, network: nn.Module) -> nn.Module:
        """The network on the device; channels last, which is several times faster on a CPU."""
        return network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def inputs(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), uint8 or floats in [0, 255] → the network's input on the device."""
        normalised = self.normalise(images.to(self.device, non_blocking=True))
        return normalised.contiguous(memory_format=torch.channels_last)

    def logits(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """What a network answers to its input (N, C, H, W): logits (N, C', H, W), float32."""
        with self.fabric.autocast():
            logits = network(inputs)
        return enlarged(logits.float(), inputs.shape[2:])

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (N, C, H, W) → probabilities of the classes asked for (N, C', H, W), float32."""
        # Softmax over the channels of a channels-last tensor takes twice as long on a CPU.
        return mapped_probabilities(logits.float().contiguous(), self.matrix)

    @property
    def half_hw(self) -> tuple[int, int]:
        """Half the input size, where probabilities are compared and kept."""
        height, width = self.spec.input_hw
        return max(1, height // 2), max(1, width // 2)

    def half_size(self, probabilities: Tensor) -> Tensor:
        """Probabilities (N, C, H, W) of any size at half the input size."""
        return functional.interpolate(probabilities, self.half_hw, mode="bilinear", antialias=True)

    @property
    def num_classes(self) -> int:
        """Of the classes asked for."""
        return self.spec.answer_space.num_classes

    def mix_target_statistics(self, target_share: float, num_images: int = 48) -> None:
        """Let the model's BatchNorm statistics be ``target_share`` the target's.

        Methods that learn start from here and keep the statistics: they train the network as it
        will be used, normalised by running statistics. A step then depends neither on which images
        share its batch nor on how many processes share its work.
        """
        if target_share and batchnorm_layers(self.model):
            batches = self.target_batches(num_images, 8)
            target_statistics(self.model, batches).mix_into(self.model, target_share)

    def target_batches(
        self, count: int, batch_size: int, size_hw: tuple[int, int] | None = None
    ) -> Iterator[Tensor]:
        """Network inputs of ``count`` images spread over the target, a batch at a time."""
        chosen = np.array(self.target.spread(count))
        # Even batches: some networks cannot take the statistics of a last one of a single image.
        for batch in np.array_split(chosen, -(-len(chosen) // batch_size)):
            yield self.inputs(self.target.images(batch.tolist(), size_hw))
