"""Labelled images that a result is scored on, and nothing is learnt from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from runtime.labels import LabelSpace
from sfda_edge.data import ImageSet, open_images
from sfda_edge.data.loading import read_all
from sfda_edge.evaluate import require_same_classes

_TRIED = 16  # samples that show what is wrong with all


@dataclass(frozen=True)
class Validation:
    """What ``--validation`` names.

    Attributes:
        images: as ``open_images`` takes them.
        labels_dir: index images named as the images, for a plain folder or a video.
    """

    images: str
    labels_dir: Path | None = None

    def open(self, space: LabelSpace, skip_bad: bool = False) -> ImageSet:
        """The images; one has been read with its labels, so that a slip shows before the work.

        Args:
            space: the model's classes.
            skip_bad: damaged samples will be left out.

        Raises:
            DataError: there is nothing there, or no labels, or not of these classes.
        """
        images = open_images(self.images, self.labels_dir)
        require_same_classes(images, space)
        first = replace(images, samples=images.samples[:_TRIED])
        next(read_all(first, images.label_space or space, skip_bad))
        return images
