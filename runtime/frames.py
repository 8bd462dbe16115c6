"""Frame and Segmentation: what flows through the pipeline."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture from a source.

    Attributes:
        index: number of the frame in its source, from 0.
        image: (H, W, 3) uint8 RGB.
        captured_ns: monotonic clock at capture: by a network stream's own time stamps, of a camera
            and a file when the library had read it.
        time_s: on the source's own clock; None of one without.
        state: of the source with this frame: live, frozen or black.
    """

    index: int
    image: np.ndarray
    captured_ns: int
    time_s: float | None = None
    state: str = "live"

    @property
    def age_ms(self) -> float:
        """Milliseconds since it was captured."""
        return (time.monotonic_ns() - self.captured_ns) * 1e-6


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Segmentation:
    """A model's prediction for a frame.

    Attributes:
        frame: the picture.
        label_map: (h, w) uint8 at the model's own size.
        timing: milliseconds of each stage, by name: read, queue, resize, infer.
        confidence: (h, w) uint8, 255 times the label's probability; None of a model without.
        health: (K,) float32 drift figures as the manifest lays them out; None of a model without.
        state: of the source: live, frozen or black; of a repeated result opening, stale or lost.
        repeated: there is no new frame, and this stands for it, as ``--on-loss`` says. ``frame`` is
            the last one; its age grows.
    """

    frame: Frame
    label_map: np.ndarray
    timing: dict[str, float]
    confidence: np.ndarray | None = None
    health: np.ndarray | None = None
    state: str = "live"
    repeated: bool = False

    def class_shares(self, num_classes: int) -> np.ndarray:
        """Share of the pixels that each class has, (C,) float."""
        counts = np.bincount(self.label_map.reshape(-1), minlength=num_classes)
        return counts[:num_classes] / self.label_map.size
