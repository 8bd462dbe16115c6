"""Compare a bundle with the model that it was made from, on the user's own images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from export.errors import ParityError
from runtime.confusion import ConfusionMatrix
from runtime.labels import LabelSpace

Segmenter = Callable[[np.ndarray], np.ndarray]
# The least share of pixels with the same label. fp16 rounds where two classes nearly tie.
THRESHOLDS = {"fp32": 0.999, "fp16": 0.995}


@dataclass(frozen=True)
class ParityReport:
    """How far a candidate's label maps agree with the reference's.

    Attributes:
        label_agreement: share of pixels with the same label, over all images, in [0, 1].
        worst_image: the same for the image that agrees least.
        lowest_class_iou: IoU between the two, of the class where it is lowest.
        lowest_class: that class.
        num_images: how many images were compared.
        threshold: what the agreement has to reach.
    """

    label_agreement: float
    worst_image: float
    lowest_class_iou: float
    lowest_class: str
    num_images: int
    threshold: float

    @property
    def passed(self) -> bool:
        """Whether the candidate may be shipped."""
        return self.label_agreement >= self.threshold

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}

    def line(self) -> str:
        """The verdict for people."""
        return (
            f"label agreement {100 * self.label_agreement:.3f} % over {self.num_images} images "
            f"(at least {100 * self.threshold:.1f} %), worst image "
            f"{100 * self.worst_image:.3f} %, lowest class {self.lowest_class} "
            f"(IoU {self.lowest_class_iou:.4f})"
        )


def compare(
    reference: Segmenter,
    candidate: Segmenter,
    images: Iterable[np.ndarray],
    space: LabelSpace,
    threshold: float,
) -> ParityReport:
    """Run both on the images, each (H, W, 3) uint8 at the input size.

    Raises:
        ValueError: there are no images.
    """
    confusion = ConfusionMatrix(space.num_classes, space.ignore_index)
    agreements = []
    for image in images:
        expected, found = reference(image), candidate(image)
        confusion.update(expected, found)
        agreements.append(float((expected == found).mean()))
    if not agreements:
        raise ValueError("parity needs at least one image")
    scores = confusion.scores()
    lowest = int(np.nanargmin(scores.iou))
    return ParityReport(
        label_agreement=float(np.mean(agreements)),
        worst_image=min(agreements),
        lowest_class_iou=float(scores.iou[lowest]),
        lowest_class=space.names[lowest],
        num_images=len(agreements),
        threshold=threshold,
    )


def require(report: ParityReport, what: str) -> None:
    """The gate.

    Raises:
        ParityError: the agreement is below its threshold.
    """
    if not report.passed:
        raise ParityError(f"{what} does not answer as the model does: {report.line()}")
