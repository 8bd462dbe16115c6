"""Strong augmentation of labelled images, batched on the device: crops, colours, mixes.

Labels follow their image through the geometry; colours leave them alone. In a data-parallel run all
processes draw the parameters of the global batch and apply those of their own rows, so that any
number of processes augments as one would.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sfda_edge.errors import RecipeError
from sfda_edge.runs.distributed import local_rows, num_processes, rolled

logger = logging.getLogger(__name__)
# Parameters that kornia draws once for a batch, not for each image.
_OF_THE_BATCH = ("order", "forward_input_shape")
_BLUR_PX = 5  # reflected at the edges, so that half of it has to fit


@dataclass(frozen=True, eq=False)
class LabelledBatch:
    """Images with their labels.

    Attributes:
        images: (N, 3, H, W) in [0, 255].
        soft_labels: class probabilities (N, C, H, W); all 0 in pixels without a label.
    """

    images: Tensor
    soft_labels: Tensor


class StrongAugmentation:
    """Mirror, crop at another scale, change colours, blur.

    Args:
        size_hw: of the images, before and after.
        min_scale: crops keep at least this share of the area.
        colour_jitter: strength of brightness, contrast and saturation; hue a sixth of it.
        blur_share: share of blurred images.

    Raises:
        RecipeError: the images are too small to be blurred.
    """

    def __init__(
        self, size_hw: tuple[int, int], min_scale: float, colour_jitter: float, blur_share: float
    ) -> None:
        import kornia
        import kornia.augmentation as K  # the community's own abbreviation

        if tuple(int(part) for part in kornia.__version__.split(".")[:2]) < (0, 9):
            logger.warning(
                "kornia %s crops wide images wrongly, and students lose accuracy (the packaged "
                "demo: 48.4 instead of 52.5); kornia 0.9 is right, and needs Python 3.11",
                kornia.__version__,
            )
        if min(size_hw) <= _BLUR_PX // 2:
            raise RecipeError(
                f"an input of {size_hw[1]}x{size_hw[0]} is too small to train on; its sides need "
                f"{_BLUR_PX // 2 + 1} pixels"
            )
        ratio = size_hw[1] / size_hw[0]
        self._geometry = K.AugmentationSequential(
            K.RandomHorizontalFlip(p=0.5),
            K.RandomResizedCrop(
                size_hw, (min_scale, 1.0), (0.8 * ratio, 1.25 * ratio), align_corners=False
            ),
            data_keys=["input", "mask"],
        )
        jitter = colour_jitter
        self._colour = K.ImageSequential(
            K.ColorJitter(jitter, jitter, jitter, jitter / 6, p=0.8),
            K.RandomGaussianBlur((_BLUR_PX, _BLUR_PX), (0.1, 1.5), p=blur_share),
        )

    def __call__(self, batch: LabelledBatch) -> LabelledBatch:
        """This process's rows of a global batch, augmented; labels beyond an image's edge are 0."""
        images = batch.images / 255
        drawn = _local_parameters(self._geometry, images)
        images, soft_labels = self._geometry(images, batch.soft_labels, params=drawn)
        images = self._colour(images, params=_local_parameters(self._colour, images))
        return LabelledBatch(images.clamp(0, 1) * 255, soft_labels)


def _local_parameters(augmentation: Any, images: Tensor) -> list[Any]:
    """Parameters of this process's rows, of those that are drawn for the global batch."""
    count = len(images) * num_processes()
    drawn = augmentation.forward_parameters(torch.Size((count, *images.shape[1:])))
    for item in drawn:
        for name, values in item.data.items():
            if name not in _OF_THE_BATCH:
                item.data[name] = local_rows(values)
    return drawn


def class_mix(batch: LabelledBatch) -> LabelledBatch:
    """Paste half of each image's classes onto the next image of the global batch.

    Olsson et al., "ClassMix", WACV 2021. A pixel's class is the most likely one.
    """
    images, soft_labels = rolled(batch.images), rolled(batch.soft_labels)
    best = soft_labels.max(1)
    present = torch.zeros(soft_labels.shape[:2], device=soft_labels.device)
    present.scatter_add_(1, best.indices.flatten(1), (best.values > 0).float().flatten(1))
    # Half of the present classes, rounded up: those with the highest random rank.
    chances = torch.rand(len(present) * num_processes(), present.shape[1])
    chances = local_rows(chances).to(present.device).masked_fill(present == 0, -1.0)
    ranks = chances.argsort(1, descending=True).argsort(1)
    picked = (present > 0) & (ranks < ((present > 0).sum(1, keepdim=True) + 1) // 2)
    paste = picked.gather(1, best.indices.flatten(1)).view_as(best.indices) & (best.values > 0)
    paste = paste[:, None]
    return LabelledBatch(
        torch.where(paste, images, batch.images),
        torch.where(paste, soft_labels, batch.soft_labels),
    )
