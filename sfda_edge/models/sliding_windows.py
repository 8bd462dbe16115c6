"""Large images and panoramas: overlapping windows of the network's input size, averaged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sfda_edge.errors import DataError

# A window's step, as a share of its size: an overlap of a third, as mmsegmentation's ``slide``.
_STEP = 2 / 3
_MOST_PIXELS = 2**27
_MOST_SCALE = 16  # more shows nothing, and a record of somebody else may hold any number


@dataclass(frozen=True)
class SlidingWindows:
    """How an image is cut into windows.

    Attributes:
        scale: the image is resized by it first: 1 for a network that knows objects at the size
            that they have here. Images smaller than a window are enlarged to it.
        wrap: the left and right border are neighbours, as in a panorama of 360°.

    Raises:
        DataError: the scale is not above 0, or above 16.
    """

    scale: float = 1.0
    wrap: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.scale <= _MOST_SCALE:
            raise DataError(
                f"the scale of windows must be above 0, {_MOST_SCALE} at most, got {self.scale:g}"
            )

    def text(self) -> str:
        """What they are of, for people."""
        wrapped = ", the sides joined" if self.wrap else ""
        return f"of the input size, images at scale {self.scale:g}{wrapped}"

    def scaled_hw(self, image_hw: tuple[int, int], window_hw: tuple[int, int]) -> tuple[int, int]:
        """The size to which an image is resized before it is cut.

        Raises:
            DataError: it would be larger than 134 million pixels.
        """
        least = max(window / side for window, side in zip(window_hw, image_hw, strict=True))
        scale = max(self.scale, least)
        height, width = (
            max(window, round(scale * side))
            for window, side in zip(window_hw, image_hw, strict=True)
        )
        if height * width > _MOST_PIXELS:
            raise DataError(
                f"images of {image_hw[1]}x{image_hw[0]} become {width}x{height}; choose a smaller "
                "scale of windows"
            )
        return height, width

    def mean(
        self,
        predict: Callable[[np.ndarray], Tensor],
        image: np.ndarray,
        window_hw: tuple[int, int],
    ) -> Tensor:
        """Class probabilities of an image, each pixel the weighted mean of its windows.

        Windows weigh most in their middle, where they see what is around a pixel.

        Args:
            predict: (h, w, 3) uint8 at the window's size → (C, h, w) probabilities.
            image: (H, W, 3) uint8, at least as large as a window.
            window_hw: the network's input size.

        Returns:
            (C, H, W).
        """
        (height, width), (window_h, window_w) = image.shape[:2], window_hw
        weight = torch.outer(_ramp(window_h), _ramp(window_w))
        total, weights = None, torch.zeros(height, width)
        for top in window_starts(height, window_h, wrap=False):
            for left in window_starts(width, window_w, wrap=self.wrap):
                columns = (left + np.arange(window_w)) % width
                window = np.ascontiguousarray(image[top : top + window_h, columns])
                found = predict(window).cpu() * weight
                if total is None:
                    total = torch.zeros(len(found), height, width)
                total[:, top : top + window_h, columns] += found
                weights[top : top + window_h, columns] += weight
        assert total is not None
        return total / weights


def window_starts(length: int, window: int, *, wrap: bool) -> list[int]:
    """Where windows begin along one side, evenly spaced; the last one ends at the border.

    Args:
        length: of the side, at least ``window``.
        window: size of a window.
        wrap: the end is followed by the beginning.
    """
    step = max(1, math.ceil(_STEP * window))
    if wrap and length > window:
        count = math.ceil(length / step)
        return [round(index * length / count) for index in range(count)]
    count = 1 + math.ceil((length - window) / step)
    return [round(index * (length - window) / max(1, count - 1)) for index in range(count)]


def _ramp(length: int) -> Tensor:
    """1 at both ends of a window, rising to its middle."""
    places = torch.arange(length)
    return 1.0 + torch.minimum(places, length - 1 - places)
