"""Still images: read them strictly, resize them the one way that training and device share."""

from __future__ import annotations

import locale
import os
import re
import struct
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from runtime.files import require_regular

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})
# Pillow decides by content, and would start Ghostscript for an EPS that is called .png.
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")


class ImageError(Exception):
    """An image file is damaged or of an unknown kind, or a folder of them cannot be read."""


def list_images(folder: Path, pattern: str = "*", *, deep: bool = False) -> list[Path]:
    """The image files of a folder that fit a pattern, in the order of their names and numbers.

    ``frame_2.png`` comes before ``frame_10.png``: names of frames are not always padded. Hidden
    files and folders are left out, such as the ``._name.png`` that macOS leaves beside each file on
    other file systems.

    Args:
        folder: where they are.
        pattern: of their names, such as ``*_left.png``.
        deep: those of its subfolders, too, also of links, unless they lead back to a folder above.

    Raises:
        ImageError: the folder, or one of its subfolders, is missing or cannot be read.
    """
    found: list[Path] = []
    above: dict[str, frozenset[str]] = {str(folder): frozenset()}
    for parent, folders, names in os.walk(folder, onerror=_cannot_be_listed, followlinks=True):
        folders[:] = [name for name in folders if deep and not name.startswith(".")]
        real, those_above = os.path.realpath(parent), above[parent]
        if real in those_above:
            folders.clear()
            continue
        above |= {os.path.join(parent, name): those_above | {real} for name in folders}  # noqa: PTH118
        images = (name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES)
        shown = (name for name in images if not name.startswith("."))
        found += [Path(parent, name) for name in shown if fnmatchcase(name, pattern)]
    return sorted(found, key=in_order)


def in_order(path: Path) -> tuple[Any, ...]:
    """Texts and numbers of a path's parts in turn, then the path itself: 01 and 1 differ."""
    pieces = (re.split(r"([0-9]+)", part) for part in path.parts)
    numbered = [
        tuple(int(piece) if place % 2 else piece for place, piece in enumerate(some))
        for some in pieces
    ]
    return tuple(numbered), path


def _cannot_be_listed(error: OSError) -> NoReturn:
    raise ImageError(f"{error.filename} cannot be read: {error.strerror}") from None


def read_image(path: Path) -> np.ndarray:
    """Read an image as (H, W, 3) uint8 RGB, turned upright.

    Raises:
        ImageError: the file is truncated, empty, or no image of ``IMAGE_FORMATS``.
    """
    from PIL import Image, ImageOps

    try:
        require_regular(path)
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            if image.mode.startswith(("I", "F")):
                raise ImageError(f"{path}: images of 8 bits are read, this one is {image.mode}")
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except _damage() as error:
        raise ImageError(f"{path}: {_cause(error)}") from None


def image_hw(path: Path) -> tuple[int, int]:
    """Height and width of an image file, without decoding it or turning it upright.

    Raises:
        ImageError: the file is no image of ``IMAGE_FORMATS``.
    """
    from PIL import Image

    try:
        require_regular(path)
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            return image.height, image.width
    except _damage() as error:
        raise ImageError(f"{path}: {_cause(error)}") from None


def read_label_map(path: Path) -> np.ndarray:
    """Read an index image as (H, W) uint8; palette images give their index.

    Raises:
        ImageError: the file is damaged, or has more than one channel.
    """
    from PIL import Image

    try:
        require_regular(path)
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            labels = np.asarray(image)
    except _damage() as error:
        raise ImageError(f"{path}: {_cause(error)}") from None
    whole = labels.dtype.kind in "bui" or np.isin(labels, np.arange(256)).all()
    if labels.ndim != 2 or not whole or labels.min() < 0 or labels.max() > 255:
        raise ImageError(
            f"{path}: a label map has one channel with whole numbers from 0 to 255; "
            f"found shape {labels.shape}, type {labels.dtype}"
        )
    return labels.astype(np.uint8)


def _damage() -> tuple[type[Exception], ...]:
    """What Pillow's decoders raise when a file is not what its name says."""
    from PIL import Image

    return (
        OSError,
        ValueError,
        SyntaxError,
        TypeError,
        OverflowError,
        struct.error,
        Image.DecompressionBombError,
    )


def _cause(error: Exception) -> str:
    """Pillow's words without the file's path, which some of its messages repeat."""
    reason = getattr(error, "strerror", None) or str(error)
    return reason.split(": '")[0].split(" '/")[0].split(" <_io")[0] or type(error).__name__


def require_encodable(path: Path) -> None:
    """Reject names that OpenCV and panda3d cannot open: they crash instead of failing.

    Raises:
        ImageError: the name is not UTF-8, or the locale cannot express it.
    """
    encoding = locale.getpreferredencoding(False)
    try:
        str(path).encode("utf-8")
        str(path).encode(encoding)
    except UnicodeEncodeError:
        raise ImageError(
            f"{path}: OpenCV cannot open this name in the locale's encoding ({encoding}); rename "
            "the file, or set LC_ALL=C.UTF-8"
        ) from None


def resize_image(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, 3) uint8 bilinearly to ``size_hw``; the same array when it fits already."""
    if image.shape[:2] == tuple(size_hw):
        return image
    import cv2

    height, width = size_hw
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def resize_label_map(label_map: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Resize (H, W) uint8 to ``size_hw``, each pixel taking its nearest label."""
    if label_map.shape == tuple(size_hw):
        return label_map
    import cv2

    height, width = size_hw
    # INTER_NEAREST_EXACT samples at pixel centres; INTER_NEAREST is shifted by up to half a pixel.
    return cv2.resize(label_map, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
