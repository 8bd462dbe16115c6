"""How data sets write labels, each read as indices (H, W) uint8 of classes, 255 ignored."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.bundle.labels import IGNORED
from runtime.files import read_bytes, read_text
from runtime.images import ImageError, read_image, read_label_map

LabelReader = Callable[[Path], np.ndarray]
Colour = tuple[int, int, int]


def by_number(classes: Mapping[int, int]) -> LabelReader:
    """A reader of index images; numbers that are not in ``classes`` are ignored."""
    table = lookup_table(classes)
    return lambda path: table[read_label_map(path)]


def by_listed_number(classes: Mapping[int, int]) -> LabelReader:
    """A reader of index images that raises ``ImageError`` for a number that is not listed."""
    table = np.full(256, -1, np.int16)
    for number, index in classes.items():
        table[number] = index

    def read(path: Path) -> np.ndarray:
        labels = read_label_map(path)
        found = table[labels]
        if (found < 0).any():
            foreign: Sequence[int] = np.unique(labels[found < 0]).tolist()
            listed = ", ".join(map(str, foreign[:5]))
            raise ImageError(f"{path}: label {listed} is no class, and none that is ignored")
        return found.astype(np.uint8)

    return read


def lookup_table(classes: Mapping[int, int]) -> np.ndarray:
    """(256,) uint8: the class of each number, ignored where there is none."""
    table = np.full(256, IGNORED, np.uint8)
    for number, index in classes.items():
        table[number] = index
    return table


def by_colour(classes: Mapping[Colour, int]) -> LabelReader:
    """A reader of colour images.

    It raises ``ImageError`` for a colour that is not in ``classes``: what nobody has listed is a
    mistake, such as a label image that was saved as JPEG.

    Raises:
        ValueError: there is no colour.
    """
    if not classes:
        raise ValueError("no class has a colour")
    codes = {_code(colour): index for colour, index in classes.items()}
    known = np.array(sorted(codes), np.uint32)
    indices = np.array([codes[code] for code in sorted(codes)], np.uint8)

    def read(path: Path) -> np.ndarray:
        found = _codes(read_image(path))
        places = np.searchsorted(known, found).clip(max=len(known) - 1)
        foreign = found[known[places] != found]
        if foreign.size:
            levels = tuple(int(foreign[0]) >> shift & 255 for shift in (16, 8, 0))
            raise ImageError(
                f"{path}: {foreign.size} pixels have a colour of no class, the first {levels}"
            )
        return indices[places]

    return read


def _code(colour: Colour) -> int:
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def _codes(image: np.ndarray) -> np.ndarray:
    """(H, W) uint32: red, green and blue of each pixel as one number."""
    wide = image.astype(np.uint32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def by_first_channel(classes: Mapping[int, int]) -> LabelReader:
    """A reader of 16-bit images whose red channel has the class and whose others have more."""
    table = lookup_table(classes)

    def read(path: Path) -> np.ndarray:
        import cv2

        try:
            content = np.frombuffer(read_bytes(path), np.uint8)
        except OSError as error:
            raise ImageError(f"{path}: {error.strerror}") from None
        # Pillow makes 8 bits of 16, and with them class 0 of every class.
        pixels = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
        if pixels is None or pixels.ndim != 3 or pixels.dtype != np.uint16:
            raise ImageError(f"{path}: expected a PNG of 16 bits and three channels")
        red = pixels[..., 2]  # OpenCV's order is blue, green, red
        return table[np.minimum(red, IGNORED)]

    return read


def by_base_256(classes: Callable[[Path], np.ndarray]) -> LabelReader:
    """A reader of colour images that spell a number: 65536 red + 256 green + blue.

    Args:
        classes: the class of each number, (N,) uint8, for a label file; greater numbers are
            ignored.
    """

    def read(path: Path) -> np.ndarray:
        table = classes(path)
        if not len(table):
            raise ImageError(f"{path}: the list of its classes is empty")
        numbers = _codes(read_image(path))
        inside = numbers < len(table)
        return np.where(inside, table[np.where(inside, numbers, 0)], np.uint8(IGNORED))

    return read


def by_polygon(classes: Mapping[str, int]) -> LabelReader:
    """A reader of Cityscapes' JSON polygons, drawn in their order; other labels are ignored."""

    def read(path: Path) -> np.ndarray:
        import cv2

        size_hw, objects = _polygons(path)
        label_map = np.full(size_hw, IGNORED, np.uint8)
        for label, points in objects:
            # A group of cars is "cargroup".
            index = classes.get(label, classes.get(label.removesuffix("group"), IGNORED))
            if len(points) >= _FEWEST_CORNERS:
                cv2.fillPoly(label_map, [points], index)
        return label_map

    return read


_MOST_SIDE, _FEWEST_CORNERS = 32_768, 3


def _polygons(path: Path) -> tuple[tuple[int, int], list[tuple[str, np.ndarray]]]:
    """The image's size and each object's label with its corners (N, 2) int32.

    Raises:
        ImageError: the file has another form.
    """
    try:
        content = json.loads(read_text(path))
        size_hw = int(content["imgHeight"]), int(content["imgWidth"])
        kept = [found for found in content["objects"] if not found.get("deleted")]
        objects = [(str(found["label"]), _corners(found["polygon"])) for found in kept]
    except (
        *(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError),
        OverflowError,
    ) as error:
        raise ImageError(f"{path}: no polygons of Cityscapes' form: {error}") from None
    if not all(1 <= side <= _MOST_SIDE for side in size_hw):
        raise ImageError(f"{path}: an image of {size_hw[1]}x{size_hw[0]}")
    return size_hw, objects


def _corners(polygon: Sequence[Any]) -> np.ndarray:
    corners = np.array(polygon, np.float64).reshape(-1, 2)
    if not np.isfinite(corners).all():
        raise ValueError("a corner is no number")
    return np.clip(np.rint(corners), -_MOST_SIDE, 2 * _MOST_SIDE).astype(np.int32)
