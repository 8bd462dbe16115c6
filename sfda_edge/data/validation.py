"""Labelled images that a result is scored on; they are not used for training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtime.bundle.labels import LabelSpace
from sfda_edge.data import ImageSet, ImageSource, open_images
from sfda_edge.data.label_counts import LabelCounts
from sfda_edge.data.loading import read_all
from sfda_edge.data.relabel import in_classes_of, with_label_classes
from sfda_edge.errors import DataError
from sfda_edge.runs.progress import Progress, silent


@dataclass(frozen=True)
class Validation:
    """What ``--validation`` names.

    Attributes:
        images: as ``open_images`` takes them.
        labels_dir: index images named as the images, for a plain folder or a video.
        label_classes: what the labels mean; None for the model's classes, or the data set's.
    """

    images: ImageSource
    labels_dir: Path | None = None
    label_classes: str | LabelSpace | None = None

    def open(self, space: LabelSpace) -> ImageSet:
        """The images, with labels in a model's classes.

        Raises:
            DataError: there is nothing there, or no labels, or not of these classes.
        """
        images = open_images(self.images, self.labels_dir)
        if self.label_classes is not None:
            images = with_label_classes(images, self.label_classes)
        return in_classes_of(images, space)

    def open_checked(
        self, space: LabelSpace, *, skip_bad: bool = False, progress: Progress = silent
    ) -> ImageSet:
        """The images, after every one has been read: before hours of work, not after them.

        Args:
            space: a model's classes.
            skip_bad: damaged samples will be left out.
            progress: wraps the images.

        Raises:
            DataError: as ``open``; or samples are damaged, or labels say nothing, as
                ``require_classes`` has it.
        """
        images = self.open(space)
        counts = LabelCounts(space)
        for loaded in progress(read_all(images, space, skip_bad)):
            assert loaded.label_map is not None
            counts.update(loaded.label_map)
        counts.require_classes(images.title)
        return images


def optional_validation(
    images: ImageSource | None,
    labels_dir: str | Path | None,
    label_classes: str | LabelSpace | None,
    *,
    name: str = "validation",
) -> Validation | None:
    """What a caller in Python says of labelled images; None without any.

    Raises:
        DataError: labels without images.
    """
    if images is None:
        for end, given in (("labels", labels_dir), ("classes", label_classes)):
            if given is not None:
                raise DataError(f"{name}_{end} needs {name}, the images")
        return None
    return Validation(images, None if labels_dir is None else Path(labels_dir), label_classes)
