"""ImageSet: what every data set looks like to the rest of the program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from runtime.bundle.labels import IGNORED, LabelSpace
from sfda_edge.errors import DataError

Reader = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Sample:
    """One image and, where there is one, how to read its label map.

    Attributes:
        name: unique in its set; used for files and messages.
        image: reads (H, W, 3) uint8 RGB.
        label_map: reads (H, W) uint8, or None.
    """

    name: str
    image: Reader
    label_map: Reader | None = None


@dataclass(frozen=True)
class ImageSet:
    """Images in order.

    Attributes:
        title: what it is, for people.
        samples: the images; nothing is read before it is asked for.
        label_space: what the labels mean, when the data set says so itself.
        label_template: where it looked for labels, when the data set says so itself.
    """

    title: str
    samples: tuple[Sample, ...]
    label_space: LabelSpace | None = None
    label_template: str = ""

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def labelled(self) -> bool:
        """Whether every image has a label map."""
        return all(sample.label_map is not None for sample in self.samples)


def images_in_memory(images: Sequence[np.ndarray]) -> ImageSet:
    """Images that were given in Python, each (H, W, 3) uint8 RGB, as a set.

    Raises:
        DataError: there are none, or one has another shape or type.
    """
    if len(images) == 0:
        raise DataError("no images: the sequence is empty")
    for index, image in enumerate(images):
        shaped = (
            isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 3 and image.size
        )
        if not shaped or image.dtype != np.uint8:
            found = getattr(image, "shape", type(image).__name__), getattr(image, "dtype", "")
            raise DataError(
                f"image {index}: expected an array (H, W, 3) of uint8, found {found[0]} {found[1]}"
            )
    samples = tuple(
        Sample(f"image {index}", partial(np.asarray, image)) for index, image in enumerate(images)
    )
    return ImageSet(f"{len(samples)} images in memory", samples)


def checked_label_map(sample: Sample, image: np.ndarray, space: LabelSpace) -> np.ndarray:
    """Read a sample's label map and compare it with its image and its label space.

    Labels of 255, which the field ignores, become the label that the space ignores.

    Raises:
        DataError: it has another size, or a label that is neither a class nor ignored.
    """
    if sample.label_map is None:
        raise DataError(f"{sample.name} has no label map")
    label_map = sample.label_map()
    if label_map.shape != image.shape[:2]:
        swapped = label_map.shape == image.shape[1::-1] and image.shape[0] != image.shape[1]
        advice = "; does the image have an EXIF tag that turns it?" if swapped else ""
        raise DataError(
            f"{sample.name}: the label map is {_size(label_map)} but the image {_size(image)}"
            f"{advice}"
        )
    require_known(sample.name, label_map, space)
    return np.where(label_map == IGNORED, np.uint8(space.ignore_index), label_map)


def ignored_labels(space: LabelSpace) -> str:
    """Which labels are ignored, for people."""
    return " and ".join(map(str, sorted({space.ignore_index, IGNORED})))


def require_known(name: str, label_map: np.ndarray, space: LabelSpace) -> None:
    """Check that every label of a map is a class or ignored.

    Raises:
        DataError: one is not.
    """
    found = np.unique(label_map)
    ignored = np.isin(found, (space.ignore_index, IGNORED))
    foreign = found[(found >= space.num_classes) & ~ignored]
    if foreign.size:
        one_more = foreign.tolist() == [space.num_classes]
        advice = "; do they begin at 1? Name the classes of the labels, too" if one_more else ""
        raise DataError(
            f"{name}: label {', '.join(map(str, foreign[:5]))} is outside the "
            f"{space.num_classes} classes (ignored: {ignored_labels(space)}); they are expected "
            f"to be numbers of these classes{advice}"
        )


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
