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
        labels: (N, H, W) int64.
        weights: (N, H, W), how much each pixel counts; 0 outside the image.
    """

    images: Tensor
    labels: Tensor
    weights: Tensor


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
        min_scale: float = 0.5,
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
            data_keys=["input", "mask", "mask"],
        )
        jitter = colour_jitter
        self._colour = K.ImageSequential(
            K.ColorJitter(jitter, jitter, jitter, jitter / 6, p=0.8),
            K.RandomGaussianBlur((5, 5), (0.1, 1.5), p=blur_share),
        )

    def __call__(self, lesson: Lesson) -> Lesson:
        """Another view of the same lesson."""
        # Crops fill with 0 beyond the image, which is also the weight of what is not there.
        images, labels, weights = self._geometry(
            lesson.images / 255, lesson.labels[:, None].float(), lesson.weights[:, None]
        )
        labels, weights = labels[:, 0].round().long(), weights[:, 0]
        return Lesson(self._colour(images).clamp(0, 1) * 255, labels, weights)


def class_mix(lesson: Lesson, num_classes: int) -> Lesson:
    """Paste half of each image's classes onto its neighbour in the batch.

    Olsson et al., "ClassMix", WACV 2021. Only pixels with a weight are pasted, so that a mix
    teaches nothing that was not believed before.
    """
    others = Lesson(*(tensor.roll(1, 0) for tensor in vars(lesson).values()))
    present = _present_classes(others, num_classes)
    # Half of the present classes, rounded up: those with the highest random rank.
    ranks = torch.rand(present.shape).to(present.device).masked_fill(~present, -1.0)
    order = ranks.argsort(1, descending=True).argsort(1)
    picked = present & (order < (present.sum(1, keepdim=True) + 1) // 2)
    paste = picked.gather(1, others.labels.flatten(1)).view_as(others.labels)
    paste &= others.weights > 0
    return Lesson(
        torch.where(paste[:, None], others.images, lesson.images),
        torch.where(paste, others.labels, lesson.labels),
        torch.where(paste, others.weights, lesson.weights),
    )


def _present_classes(lesson: Lesson, num_classes: int) -> Tensor:
    """Which classes each image has pixels of that count, (N, C) bool."""
    counted = torch.zeros(len(lesson.labels), num_classes, device=lesson.labels.device)
    counted.scatter_add_(1, lesson.labels.flatten(1), (lesson.weights > 0).float().flatten(1))
    return counted > 0
