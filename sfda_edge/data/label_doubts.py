"""Label maps that say nothing, or something else than is believed."""

from __future__ import annotations

import numpy as np

from runtime.bundle.labels import IGNORED, LabelSpace
from runtime.confusion import ConfusionMatrix
from sfda_edge.errors import DataError

# Other labels have to agree with at least this share of the pixels, and with so many times as much
# as the labels do, before they are worth a word.
_LEAST_AGREEMENT, _TIMES = 0.5, 1.5
_MOST_TURNED = 16  # images that are compared upside down


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


class LabelDoubts:
    """Whether predictions agree far better with labels that are read in another way.

    Args:
        num_classes: of the model.
    """

    def __init__(self, num_classes: int) -> None:
        self._turned, self._num_turned = ConfusionMatrix(num_classes), 0
        self._upright = ConfusionMatrix(num_classes)

    def update(self, labels: np.ndarray, predictions: np.ndarray) -> None:
        """Compare a label map (H, W) with its prediction upside down, of the first images."""
        if self._num_turned < _MOST_TURNED:
            num_classes = self._turned.num_classes
            known = np.where(labels < num_classes, labels, np.uint8(IGNORED))
            self._turned.update(known, predictions[::-1, ::-1])
            self._upright.update(known, predictions)
            self._num_turned += 1

    def text(self, confusion: ConfusionMatrix) -> str:
        """What may be wrong with the labels; empty for nothing.

        Args:
            confusion: of all labels, which are classes' indices.
        """
        counts = confusion.counts
        as_they_are = _share(np.trace(counts), counts.sum())
        # Of all pixels, so that label 0, which would be no class, speaks against it.
        one_less = _share(np.trace(counts, -1), counts.sum())
        upright, turned = (
            _share(np.trace(one.counts), one.counts.sum()) for one in (self._upright, self._turned)
        )
        if _far_better(turned, upright) and turned >= one_less:
            return (
                f"predictions agree with {100 * turned:.0f} % of the pixels if the labels are "
                f"turned upside down, and with {100 * upright:.0f} % as they are. Do the images "
                "have an EXIF tag that turns them, and the labels not?"
            )
        if _far_better(one_less, as_they_are):
            return (
                f"predictions agree with {100 * one_less:.0f} % of the pixels if label 1 is the "
                f"first class, and with {100 * as_they_are:.0f} % as it is. Do the labels begin at "
                "1? --label-classes or --validation-classes names their classes"
            )
        return ""


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def _far_better(other: float, found: float) -> bool:
    return other >= _LEAST_AGREEMENT and other >= _TIMES * found
