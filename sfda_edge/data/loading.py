"""Read an image set in order, decoding ahead; or a labelled one whole."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from runtime.bundle.labels import LabelSpace
from runtime.images import ImageError
from sfda_edge.data.images import ImageSet, Sample, checked_label_map
from sfda_edge.errors import DataError

logger = logging.getLogger(__name__)
_LISTED = 5


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
        DataError: at the end, when samples are damaged, or none is left.
    """
    problems: list[str] = []
    for outcome in read_outcomes(images.samples, labels):
        if isinstance(outcome, LoadedImage):
            yield outcome
        else:
            problems.append(outcome)
    require_usable(problems, len(images), skip_bad)


def read_outcomes(
    samples: Sequence[Sample], labels: LabelSpace | None
) -> Iterator[LoadedImage | str]:
    """Each sample in order as it was read, or what is wrong with it.

    In chunks, so that no more than a few full-size images wait in memory.
    """
    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(samples), 16):
            yield from pool.map(lambda sample: _read(sample, labels), samples[start : start + 16])


def _read(sample: Sample, labels: LabelSpace | None) -> LoadedImage | str:
    try:
        image = sample.image()
        label_map = checked_label_map(sample, image, labels) if labels else None
    except (ImageError, DataError) as error:
        return str(error)
    return LoadedImage(sample.name, image, label_map)


def require_usable(problems: Sequence[str], count: int, skip_bad: bool) -> None:
    """Warn of damaged samples, or reject the set.

    Args:
        problems: one text a damaged sample.
        count: of all samples.
        skip_bad: only warn while some are left.

    Raises:
        DataError: samples are damaged and ``skip_bad`` is off, or none is left.
    """
    if not problems:
        return
    more = f"\n  and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
    listed = "\n  ".join(problems[:_LISTED]) + more
    none_left = len(problems) == count
    if not skip_bad or none_left:
        advice = "" if skip_bad or none_left else " (--skip-bad leaves them out)"
        raise DataError(f"{len(problems)} of {count} samples cannot be used{advice}:\n  {listed}")
    logger.warning("%d of %d samples are left out:\n  %s", len(problems), count, listed)
