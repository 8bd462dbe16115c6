"""Windows of large images as images of their own: what a network is shown of them at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from runtime.images import ImageError
from sfda_edge.data.images import ImageSet, Sample
from sfda_edge.errors import DataError
from sfda_edge.models.sliding_windows import SlidingWindows, window_starts
from sfda_edge.runs.progress import Progress, silent

logger = logging.getLogger(__name__)
_READERS = 2


class _Box(NamedTuple):
    """Rows and columns of an image; columns may go on at its left border."""

    rows: slice
    columns: np.ndarray

    def of(self, array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array[self.rows][:, self.columns])


def windows_of(
    images: ImageSet,
    windows: SlidingWindows | None,
    window_hw: tuple[int, int],
    *,
    progress: Progress = silent,
) -> ImageSet:
    """Each window of each image as a sample, at the image's own resolution.

    A damaged image stays whole, and is found damaged by whoever reads it.

    Args:
        images: large ones, labelled or not; all are read once for their sizes.
        windows: how they are cut; None leaves them whole.
        window_hw: the network's input size; a window has it after the images are resized by
            ``windows.scale``.
        progress: wraps the reading.

    Raises:
        DataError: an image is too large at this scale.
    """
    if windows is None:
        return images
    with ThreadPoolExecutor(_READERS) as pool:
        sizes = list(progress(pool.map(_size_hw, images.samples)))
    # The windows of an image are mostly read one after the other.
    image = lru_cache(maxsize=_READERS)(lambda index: images.samples[index].image())
    labels = lru_cache(maxsize=_READERS)(lambda index: _label_map(images.samples[index]))
    samples: list[Sample] = []
    for index, size_hw in enumerate(sizes):
        whole = images.samples[index]
        if size_hw is None:
            samples.append(whole)
            continue
        for number, box in enumerate(_boxes(size_hw, windows, window_hw), start=1):
            label_map = partial(_read, labels, index, box) if whole.label_map else None
            name = f"{whole.name}-window{number}"
            samples.append(Sample(name, partial(_read, image, index, box), label_map))
    logger.info("windows: %d of %d images", len(samples), len(images))
    title = f"{len(samples)} windows of {images.title}"
    return replace(images, title=title, samples=tuple(samples))


def _size_hw(sample: Sample) -> tuple[int, int] | None:
    """None of a damaged image."""
    try:
        height, width = sample.image().shape[:2]
    except (ImageError, DataError, OSError):
        return None
    return height, width


def _label_map(sample: Sample) -> np.ndarray:
    assert sample.label_map is not None
    return sample.label_map()


def _read(read: Callable[[int], np.ndarray], index: int, box: _Box) -> np.ndarray:
    return box.of(read(index))


def _boxes(
    image_hw: tuple[int, int], windows: SlidingWindows, window_hw: tuple[int, int]
) -> list[_Box]:
    """What each window covers of an image, from top left to bottom right."""
    height, width = image_hw
    scaled_h, scaled_w = windows.scaled_hw(image_hw, window_hw)
    # Rounded up, so that no row is left over between the last window and the border.
    rows = -(-window_hw[0] * height // scaled_h)
    columns = -(-window_hw[1] * width // scaled_w)
    boxes = []
    for scaled_top in window_starts(scaled_h, window_hw[0], wrap=False):
        top = min(round(scaled_top * height / scaled_h), height - rows)
        for scaled_left in window_starts(scaled_w, window_hw[1], wrap=windows.wrap):
            left = round(scaled_left * width / scaled_w)
            left = left if windows.wrap else min(left, width - columns)
            boxes.append(_Box(slice(top, top + rows), (left + np.arange(columns)) % width))
    return boxes
