"""Labelled images that a result is scored on, and nothing is learnt from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfda_edge.data import ImageSet, open_images


@dataclass(frozen=True)
class Validation:
    """What ``--validation`` names.

    Attributes:
        images: as ``open_images`` takes them.
        labels_dir: index images named as the images, for a plain folder or a video.
    """

    images: str
    labels_dir: Path | None = None

    def open(self) -> ImageSet:
        """The images.

        Raises:
            DataError: there is nothing there, or labels are missing.
        """
        return open_images(self.images, self.labels_dir)
