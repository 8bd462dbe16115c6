"""LabelCounts: how many pixels are of each class, and whether that can say anything."""

from __future__ import annotations

import numpy as np

from runtime.bundle.labels import IGNORED, LabelSpace
from sfda_edge.errors import DataError


class LabelCounts:
    """Pixels of label maps by class.

    Attributes:
        pixels: of each class, (C,) int64.
        images_with: how many label maps have each class, (C,) int64.
        ignored: pixels of no class.
    """

    def __init__(self, space: LabelSpace) -> None:
        self._space = space
        self.pixels = np.zeros(space.num_classes, np.int64)
        self.images_with = np.zeros(space.num_classes, np.int64)
        self.ignored = 0

    def update(self, label_map: np.ndarray) -> None:
        """Count a label map (H, W) uint8 of classes and ignored labels."""
        counts = np.bincount(label_map.ravel(), minlength=IGNORED + 1)
        of_classes = counts[: self._space.num_classes]
        self.pixels += of_classes
        self.images_with += of_classes > 0
        self.ignored += int(counts.sum() - of_classes.sum())

    def require_classes(self, title: str) -> None:
        """Check that the labels can tell a good prediction from a bad one.

        Raises:
            DataError: as the function of this name.
        """
        require_classes(self._space, self.pixels, self.ignored, title)


def require_classes(space: LabelSpace, pixels: np.ndarray, num_ignored: int, title: str) -> None:
    """Check that labels can tell a good prediction from a bad one.

    Args:
        space: the classes.
        pixels: of each class, (C,).
        num_ignored: pixels of no class.
        title: of the images.

    Raises:
        DataError: no pixel is of a class, or all are of one of two.
    """
    total = int(pixels.sum())
    if total == 0:
        raise DataError(f"{title}: no pixel has a label that the model knows")
    if space.num_classes == 2 and (pixels > 0).sum() == 1:
        ignored = 100 * num_ignored / (total + num_ignored)
        advice = (
            f"; {ignored:.0f} % of the pixels are ignored. If {IGNORED} means "
            f"{space.names[1]}, a .toml file says so: [numbers] with {space.names[1]} = [{IGNORED}]"
        )
        raise DataError(
            f"{title}: every label is {space.names[int(pixels.argmax())]}"
            + (advice if num_ignored else "")
        )
