"""Windows of large images as images of their own: what a network is shown of them at once."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import msgspec
import numpy as np

from runtime.images import ImageError
from sfda_edge.data.images import ImageSet, Sample
from sfda_edge.errors import DataError
from sfda_edge.models.loaded_model import LoadedModel
from sfda_edge.models.sliding_windows import SlidingWindows, window_starts
from sfda_edge.runs.directory import ADAPTED_FILE, made_weights, read_run
from sfda_edge.runs.distributed import all_objects, local_share
from sfda_edge.runs.progress import Progress, silent

logger = logging.getLogger(__name__)
_READERS = 2
_MARK = "-window"


class _Box(NamedTuple):
    """A part of an image of a known size; columns may go on at its left border."""

    image_hw: tuple[int, int]
    top: int
    left: int
    rows: int
    columns: int

    def of(self, array: np.ndarray) -> np.ndarray:
        columns = (self.left + np.arange(self.columns)) % self.image_hw[1]
        return np.ascontiguousarray(array[self.top : self.top + self.rows][:, columns])


class _Latest:
    """The arrays that were read last, as the windows of an image are mostly read in a row.

    Threads that want the same one wait for it.
    """

    def __init__(self, read: Callable[[int], np.ndarray]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Future[np.ndarray]] = OrderedDict()

    def __call__(self, index: int) -> np.ndarray:
        with self._lock:
            future = self._kept.get(index)
            is_first = future is None
            if future is None:
                future = self._kept[index] = Future()
                if len(self._kept) > _READERS:
                    self._kept.popitem(last=False)
        if is_first:
            try:
                future.set_result(self._read(index))
            except BaseException as error:
                with self._lock:
                    self._kept.pop(index, None)
                future.set_exception(error)
        return future.result()


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
        images: large ones, labelled or not; all are read once for their sizes, of several processes
            by each its share.
        windows: how they are cut; None leaves them whole.
        window_hw: the network's input size; a window has it after the images are resized by
            ``windows.scale``.
        progress: wraps the reading.

    Raises:
        DataError: an image is too large at this scale; later, too: an image or its label map has
            another size than was measured.
    """
    if windows is None:
        return images
    image = _Latest(lambda index: images.samples[index].image())
    labels = _Latest(lambda index: _label_map(images.samples[index]))
    samples: list[Sample] = []
    for index, size_hw in enumerate(_sizes_hw(images, progress)):
        whole = images.samples[index]
        if size_hw is None:
            samples.append(whole)
            continue
        for number, box in enumerate(_boxes(size_hw, windows, window_hw), start=1):
            label_map = partial(_read, labels, index, box, whole.name) if whole.label_map else None
            name = f"{whole.name}{_MARK}{number}"
            samples.append(Sample(name, partial(_read, image, index, box, whole.name), label_map))
    logger.info("windows: %d of %d images", len(samples), len(images))
    title = f"{len(samples)} windows of {images.title}"
    return replace(images, title=title, samples=tuple(samples))


def whole_name(name: str) -> str:
    """The name of the image that a window is of."""
    return name.rpartition(_MARK)[0] or name


def recorded_windows(inputs: dict[str, Any]) -> SlidingWindows | None:
    """How a run cut its images; None where it did not.

    Args:
        inputs: of ``run.json``, or what a bundle holds of them; both may be of somebody else.

    Raises:
        DataError: they are damaged.
    """
    try:
        return msgspec.convert(inputs.get("windows"), SlidingWindows | None)
    except (msgspec.ValidationError, DataError) as error:
        raise DataError(f"the record of a run: inputs.windows: {error}") from None


def _sizes_hw(images: ImageSet, progress: Progress) -> list[tuple[int, int] | None]:
    """Of each image; None of damaged ones."""
    share = list(local_share(range(len(images))))
    with ThreadPoolExecutor(_READERS) as pool:
        found = list(progress(pool.map(_size_hw, [images.samples[index] for index in share])))
    merged: dict[int, tuple[int, int] | None] = {}
    for pairs in all_objects(list(zip(share, found, strict=True))):
        merged.update(pairs)
    return [merged[index] for index in range(len(images))]


def _size_hw(sample: Sample) -> tuple[int, int] | None:
    try:
        height, width = sample.image().shape[:2]
    except (ImageError, DataError):
        return None
    return height, width


def _label_map(sample: Sample) -> np.ndarray:
    assert sample.label_map is not None
    return sample.label_map()


def _read(read: Callable[[int], np.ndarray], index: int, box: _Box, name: str) -> np.ndarray:
    array = read(index)
    if array.shape[:2] != box.image_hw:
        (found_h, found_w), (height, width) = array.shape[:2], box.image_hw
        raise DataError(
            f"{name}: expected {width}x{height}, as the image had, found {found_w}x{found_h}"
        )
    return box.of(array)


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
            boxes.append(_Box(image_hw, top=top, left=left, rows=rows, columns=columns))
    return boxes


def warn_of_other_windows(model: LoadedModel, windows: SlidingWindows | None) -> None:
    """Log that a model's images were cut when it was adapted, where they will not be cut so."""
    run = read_run(model.path.parent) if model.path is not None else {}
    adapted = made_weights(run.get("result", {})).get(ADAPTED_FILE) == model.sha256
    if adapted and (cut := recorded_windows(run.get("inputs", {}))) not in (None, windows):
        logger.warning("the model was adapted to windows %s, and is not scored so", cut.text())
