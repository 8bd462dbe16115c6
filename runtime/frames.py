"""Frame and Segmentation: what flows through the pipeline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture from a source.

    Attributes:
        index: counts the frames that the source gave, from 0.
        image: (H, W, 3) uint8 RGB.
        captured_ns: monotonic clock when it was handed over by the source.
    """

    index: int
    image: np.ndarray
    captured_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """What the model says of a frame.

    Attributes:
        frame: the picture.
        label_map: (h, w) uint8 at the model's own size.
        stage_ms: how long each stage took, by name.
    """

    frame: Frame
    label_map: np.ndarray
    stage_ms: dict[str, float]
