"""Labelled images that a result is scored on; they are not used for training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtime.bundle.labels import LabelSpace
from sfda_edge.data import ImageSet, ImageSource, open_images
from sfda_edge.data.loading import read_all
from sfda_edge.data.relabel import in_classes_of
from sfda_edge.errors import DataError
from sfda_edge.runs.progress import Progress, silent


@dataclass(frozen=True)
class Validation:
    """What ``--validation`` names.

    Attributes:
        images: as ``open_images`` takes them.
        labels_dir: index images named as the images, for a plain folder or a video.
    """

    images: ImageSource
    labels_dir: Path | None = None

    def open(self, space: LabelSpace) -> ImageSet:
        """The images, with labels in a model's classes.

        Raises:
            DataError: there is nothing there, or no labels, or not of these classes.
        """
        return in_classes_of(open_images(self.images, self.labels_dir), space)

    def open_checked(
        self, space: LabelSpace, *, skip_bad: bool = False, progress: Progress = silent
    ) -> ImageSet:
        """The images, after every one has been read: before hours of work, not after them.

        Args:
            space: a model's classes.
            skip_bad: damaged samples will be left out.
            progress: wraps the images.

        Raises:
            DataError: as ``open``; or samples are damaged, or no pixel is labelled.
        """
        images = self.open(space)
        labelled = False
        for loaded in progress(read_all(images, space, skip_bad)):
            labelled |= bool((loaded.label_map != space.ignore_index).any())
        if not labelled:
            raise DataError(f"{images.title}: no pixel has a label that the model knows")
        return images
