"""LabelDoubts: whether labels mean something else than is believed."""

from __future__ import annotations

import numpy as np

from runtime.bundle.labels import IGNORED
from runtime.confusion import ConfusionMatrix

# Other labels have to agree with at least this share of the pixels, and with so many times as much
# as the labels do, before they are worth a word.
_LEAST_AGREEMENT, _TIMES = 0.5, 1.5
_MOST_TURNED = 16  # images that are compared upside down
_TURNED = (
    "the labels are turned upside down. Do the images have an EXIF tag that turns them, and the "
    "labels not?"
)
_SWAPPED = "the two classes are swapped. Are they in another order in the labels?"
_ONE_LESS = (
    "label 1 is the first class. Do the labels begin at 1? --label-classes or --validation-classes "
    "names their classes"
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
        total, as_they_are = counts.sum(), _share(np.trace(counts), counts.sum())
        upright, turned = (
            _share(np.trace(one.counts), one.counts.sum()) for one in (self._upright, self._turned)
        )
        # Of all pixels, so that label 0, which would be no class, speaks against labels from 1 on.
        one_less = _share(np.trace(counts, -1), total)
        swapped = _share(np.fliplr(counts).trace(), total) if len(counts) == 2 else 0.0
        readings = [
            (turned, upright, _TURNED),
            (swapped, as_they_are, _SWAPPED),
            (one_less, as_they_are, _ONE_LESS),
        ]
        found, now, text = max(readings, key=lambda reading: reading[0])
        if found < _LEAST_AGREEMENT or found < _TIMES * now:
            return ""
        agreement = f"{100 * found:.0f} % of the pixels, and with {100 * now:.0f} % as they are"
        return f"predictions agree with {agreement}, if {text}"


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
