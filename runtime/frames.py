"""Frame and Segmentation: what flows through the pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

GRID_PX = 8  # every eighth pixel is enough to see whether a picture changed


class LazyImage:
    """An image of a live source, converted when somebody wants it: dropped frames never are.

    Args:
        convert: makes the (H, W, 3) uint8 RGB image; called once.
        sample: makes a grid of its brightness, (h, w) uint8, where that needs no conversion.
        nbytes: what it takes in memory, converted.
    """

    def __init__(
        self,
        convert: Callable[[], np.ndarray],
        sample: Callable[[], np.ndarray] | None = None,
        *,
        nbytes: int,
    ) -> None:
        self.nbytes = nbytes
        self._convert: Callable[[], np.ndarray] | None = convert
        self._sample = sample
        self._image: np.ndarray | None = None

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        convert = self._convert
        if self._image is None and convert is not None:
            self._image, self._convert, self._sample = convert(), None, None
        if self._image is None:
            raise AssertionError("it is converted by now")
        return self._image

    def sample(self) -> np.ndarray:
        """Every eighth pixel, (h, w) or (h, w, 3) uint8."""
        sample = self._sample
        return grid(self.image) if sample is None else sample()


def grid(image: np.ndarray) -> np.ndarray:
    """Every eighth pixel, (h, w, …)."""
    return np.ascontiguousarray(image[::GRID_PX, ::GRID_PX])


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture from a source.

    Attributes:
        index: number of the frame in its source, from 0.
        picture: the image, or what can be converted into it.
        captured_ns: monotonic clock at capture: by a network stream's own time stamps where PyAV
            reads it, else when the library had read it.
        time_s: on the source's own clock; None of one without.
        state: of the source with this frame: live, frozen or black.
    """

    index: int
    picture: np.ndarray | LazyImage
    captured_ns: int
    time_s: float | None = None
    state: str = "live"

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        return self.picture.image if isinstance(self.picture, LazyImage) else self.picture

    def sample(self) -> np.ndarray:
        """Every eighth pixel, (h, w) or (h, w, 3) uint8."""
        return self.picture.sample() if isinstance(self.picture, LazyImage) else grid(self.picture)

    @property
    def nbytes(self) -> int:
        """What the picture takes in memory."""
        return self.picture.nbytes

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
