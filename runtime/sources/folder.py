"""The images of a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from runtime.errors import SourceError
from runtime.images import ImageError, list_images, read_image
from runtime.sources.base import Source
from runtime.sources.capture import load_opencv


class FolderSource(Source):
    """The images of a folder, by name.

    Raises:
        SourceError: it holds none.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        load_opencv()  # its frames are resized by OpenCV
        self.name = str(folder)
        self._paths = list_images(folder)
        if not self._paths:
            raise SourceError(f"{folder} holds no images")

    def _next_image(self) -> np.ndarray | None:
        if self._count == len(self._paths):
            return None
        try:
            return read_image(self._paths[self._count])
        except ImageError as error:
            raise SourceError(str(error)) from None
