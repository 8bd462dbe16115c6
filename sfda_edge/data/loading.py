"""Read an image set in order, decoding ahead; or a labelled one whole."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runtime.bundle.labels import LabelSpace
from runtime.images import ImageError, resize_image, resize_label_map
from sfda_edge.data.images import ImageSet, Sample, checked_label_map
from sfda_edge.errors import DataError

logger = logging.getLogger(__name__)
Progress = Callable[[Iterable[Any]], Iterable[Any]]
_LISTED = 5


def silent(steps: Iterable[Any]) -> Iterable[Any]:
    """The progress display of those who want none."""
    return steps


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """One image as it was read.

    Attributes:
        name: the sample's.
        image: (H, W, 3) uint8 RGB at its own size.
        label_map: (H, W) uint8 at its own size, or None when not asked for.
    """

    name: str
    image: np.ndarray
    label_map: np.ndarray | None


def read_all(
    images: ImageSet, labels: LabelSpace | None, skip_bad: bool = False
) -> Iterator[LoadedImage]:
    """Read all images in order, decoding ahead; damaged ones are named and counted.

    Args:
        images: what to read.
        labels: check label maps against this space; None to leave labels unread.
        skip_bad: warn of damaged samples instead of raising.

    Raises:
        DataError: at the end, when samples were damaged; or at once, when none is left.
    """
    problems: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        for outcome in _ahead(pool, images.samples, labels):
            if isinstance(outcome, LoadedImage):
                yield outcome
            else:
                problems.append(outcome)
    if not problems:
        return
    more = f"\n  and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
    listed = "\n  ".join(problems[:_LISTED]) + more
    if not skip_bad or len(problems) == len(images):
        advice = "" if skip_bad or len(problems) == len(images) else " (--skip-bad leaves them out)"
        raise DataError(
            f"{len(problems)} of {len(images)} samples cannot be used{advice}:\n  {listed}"
        )
    logger.warning("left out %d of %d samples:\n  %s", len(problems), len(images), listed)


def _ahead(
    pool: ThreadPoolExecutor, samples: tuple[Sample, ...], labels: LabelSpace | None
) -> Iterator[LoadedImage | str]:
    """Read in chunks, so that no more than a few full-size images wait in memory."""
    for start in range(0, len(samples), 16):
        yield from pool.map(lambda sample: _read(sample, labels), samples[start : start + 16])


def _read(sample: Sample, labels: LabelSpace | None) -> LoadedImage | str:
    try:
        image = sample.image()
        label_map = checked_label_map(sample, image, labels) if labels else None
    except (ImageError, DataError) as error:
        return str(error)
    return LoadedImage(sample.name, image, label_map)


def load_labelled(
    images: ImageSet,
    labels: LabelSpace,
    size_hw: tuple[int, int],
    skip_bad: bool = False,
    progress: Progress = silent,
) -> tuple[Tensor, Tensor]:
    """All images (N, 3, H, W) and label maps (N, H, W), uint8, at the input size.

    Raises:
        DataError: as ``read_all``.
    """
    pictures, label_maps = [], []
    for loaded in progress(read_all(images, labels, skip_bad)):
        assert loaded.label_map is not None
        pictures.append(resize_image(loaded.image, size_hw))
        label_maps.append(resize_label_map(loaded.label_map, size_hw))
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return stacked, torch.from_numpy(np.stack(label_maps))
