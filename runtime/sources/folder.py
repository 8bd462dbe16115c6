"""The images of a folder, or of a pattern."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runtime.errors import SourceError
from runtime.images import ImageError, list_images, read_image
from runtime.sources.base import ImageSource, Source
from runtime.sources.capture import load_opencv

logger = logging.getLogger(__name__)


class ImagesSource(ImageSource):
    """Image files, in order; damaged ones are left out, counted and logged.

    A frame's index is its file's place in the list, whatever is left out.
    """

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        super().__init__()
        load_opencv()  # its frames are resized by OpenCV
        self.name, self._paths = name, enumerate(paths)
        self._first_problem = ""

    def _next_image(self) -> np.ndarray | None:
        for index, path in self._paths:
            self._index = index
            try:
                return read_image(path)
            except ImageError as error:
                self.damaged += 1
                self._first_problem = self._first_problem or str(error)
                logger.warning("left out: %s", error)
        return None

    def _look_back(self) -> None:
        if not self._count:
            raise SourceError(self._first_problem)
        super()._look_back()


def open_folder(folder: Path) -> Source:
    """The images of a folder, by number or name.

    Raises:
        SourceError: it holds none.
    """
    paths = _listed(folder, "*", deep=False)
    if not paths:
        raise SourceError(f"{folder} holds no images")
    return ImagesSource(str(folder), paths)


def open_pattern(pattern: Path) -> Source:
    """The images of one folder whose names fit a pattern such as ``drive/*_left.png``.

    Those of ``drive/**`` are the folder's and its subfolders', as for ``adapt``.

    Raises:
        SourceError: none does.
    """
    deep = pattern.name == "**"
    paths = _listed(pattern.parent, "*" if deep else pattern.name, deep)
    if not paths:
        raise SourceError(f"no image fits {pattern}")
    return ImagesSource(str(pattern), paths)


def _listed(folder: Path, pattern: str, deep: bool) -> list[Path]:
    try:
        return list_images(folder, pattern, deep=deep)
    except ImageError as error:
        raise SourceError(str(error)) from None
