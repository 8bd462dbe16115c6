"""The images of a folder, or of a pattern."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runtime.errors import SourceError
from runtime.images import ImageError, list_images, read_image
from runtime.sources.base import ImageSource, Source
from runtime.sources.capture import load_opencv


class ImagesSource(ImageSource):
    """Image files, in order."""

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        super().__init__()
        load_opencv()  # its frames are resized by OpenCV
        self.name, self._paths = name, paths

    def _next_image(self) -> np.ndarray | None:
        if self._count == len(self._paths):
            return None
        try:
            return read_image(self._paths[self._count])
        except ImageError as error:
            raise SourceError(str(error)) from None


def open_folder(folder: Path) -> Source:
    """The images of a folder, by name.

    Raises:
        SourceError: it holds none.
    """
    paths = list_images(folder)
    if not paths:
        raise SourceError(f"{folder} holds no images")
    return ImagesSource(str(folder), paths)


def open_pattern(pattern: Path) -> Source:
    """The images of one folder whose names fit a pattern such as ``drive/*_left.png``, by name.

    Raises:
        SourceError: none does.
    """
    paths = list_images(pattern.parent, pattern.name)
    if not paths:
        raise SourceError(f"no image fits {pattern}")
    return ImagesSource(str(pattern), paths)
