"""ConfusionMatrix: the one place where label maps are counted against labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runtime.bundle.labels import IGNORED


@dataclass(frozen=True, eq=False)
class Scores:
    """What a confusion matrix says. All in [0, 1]; NaN for a class that is nowhere.

    Attributes:
        miou: mean of ``iou`` over the classes that occur in labels or predictions.
        iou: intersection over union of each class, (C,).
        pixel_accuracy: share of counted pixels that are right.
    """

    miou: float
    iou: np.ndarray
    pixel_accuracy: float


class ConfusionMatrix:
    """Counts of (label, prediction) pairs, pixel by pixel; labels of 255 are ignored always.

    Attributes:
        counts: (C, C) int64; row: label, column: prediction.
        ignored: pixels that were not counted, their label being ignored.
    """

    def __init__(self, num_classes: int, ignore_index: int = IGNORED) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts = np.zeros((num_classes, num_classes), np.int64)
        self.ignored = 0

    def update(self, labels: np.ndarray, predictions: np.ndarray) -> None:
        """Count one or more label maps of one shape.

        Raises:
            ValueError: the shapes differ, or a label or prediction is no class.
        """
        if labels.shape != predictions.shape:
            raise ValueError(f"labels are {labels.shape} but predictions {predictions.shape}")
        counted = (labels != self.ignore_index) & (labels != IGNORED)
        truth = labels[counted].astype(np.int64)
        guess = predictions[counted].astype(np.int64)
        for what, values in (("label", truth), ("prediction", guess)):
            if values.size and (values.max() >= self.num_classes or values.min() < 0):
                raise ValueError(f"{what} {values.max()} is outside the {self.num_classes} classes")
        pairs = np.bincount(truth * self.num_classes + guess, minlength=self.num_classes**2)
        self.counts += pairs.reshape(self.num_classes, self.num_classes)
        self.ignored += labels.size - truth.size

    def scores(self) -> Scores:
        """IoU of each class, their mean, and pixel accuracy."""
        hits = np.diag(self.counts).astype(float)
        union = self.counts.sum(0) + self.counts.sum(1) - hits
        occurs = union > 0
        iou = np.full(self.num_classes, np.nan)
        iou[occurs] = hits[occurs] / union[occurs]
        total = self.counts.sum()
        return Scores(
            miou=float(iou[occurs].mean()) if occurs.any() else float("nan"),
            iou=iou,
            pixel_accuracy=float(hits.sum() / total) if total else float("nan"),
        )
