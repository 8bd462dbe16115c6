"""What a student sees of an image that its teacher saw plainly: other crops, colours, blur, mixes.

All of it runs on the device, batched (kornia). A label map follows its image through the geometry
and is left alone by the colours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Lesson:
    """Images with what is believed of them.

    Attributes:
        images: (N, 3, H, W) in [0, 255].
        taught: class probabilities (N, C, H, W); all 0 where nothing is taught.
    """

    images: Tensor
    taught: Tensor


class StrongAugmentation:
    """Mirror, crop at another scale, change colours, blur.

    Args:
        size_hw: of the images, before and after.
        min_scale: crops keep at least this share of the area.
        colour_jitter: strength of brightness, contrast and saturation; hue a sixth of it.
        blur_share: share of blurred images.
    """

    def __init__(
        self,
        size_hw: tuple[int, int],
        min_scale: float = 0.9,
        colour_jitter: float = 0.3,
        blur_share: float = 0.3,
    ) -> None:
        import kornia.augmentation as K  # the community's own abbreviation

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
            K.RandomGaussianBlur((5, 5), (0.1, 1.5), p=blur_share),
        )

    def __call__(self, lesson: Lesson) -> Lesson:
        """Another view of the same lesson; nothing is taught beyond the image's edge."""
        images, taught = self._geometry(lesson.images / 255, lesson.taught)
        return Lesson(self._colour(images).clamp(0, 1) * 255, taught)


def class_mix(lesson: Lesson) -> Lesson:
    """Paste half of each image's classes onto its neighbour in the batch.

    Olsson et al., "ClassMix", WACV 2021. A pixel's class is the most likely one.
    """
    images, taught = lesson.images.roll(1, 0), lesson.taught.roll(1, 0)
    best = taught.max(1)
    present = torch.zeros(taught.shape[:2], device=taught.device)
    present.scatter_add_(1, best.indices.flatten(1), (best.values > 0).float().flatten(1))
    # Half of the present classes, rounded up: those with the highest random rank.
    chances = torch.rand(present.shape).to(present.device).masked_fill(present == 0, -1.0)
    ranks = chances.argsort(1, descending=True).argsort(1)
    picked = (present > 0) & (ranks < ((present > 0).sum(1, keepdim=True) + 1) // 2)
    paste = picked.gather(1, best.indices.flatten(1)).view_as(best.indices) & (best.values > 0)
    paste = paste[:, None]
    return Lesson(
        torch.where(paste, images, lesson.images), torch.where(paste, taught, lesson.taught)
    )
