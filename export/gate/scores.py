"""mIoU on labelled images: before the adaptation, of the model, and of what is shipped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from export.request import Labelled
from runtime.bundle.labels import LabelSpace
from runtime.confusion import ConfusionMatrix

LabelMap = Callable[[np.ndarray], np.ndarray]  # (H, W, 3) uint8 → (H, W) uint8


@dataclass(frozen=True)
class BundleScores:
    """mIoU in percent, of label maps at the input size.

    Attributes:
        num_images: that were scored.
        before: of the source model, where there is one.
        model: of the model that was exported, in torch.
        asked: the same with labels taken as the graph was asked to, on a coarse grid perhaps.
        shipped: of the graph in the bundle.
    """

    num_images: int
    before: float | None
    model: float
    asked: float
    shipped: float

    @property
    def change(self) -> float:
        """Points that the conversion gained; what was asked for is not its fault."""
        return self.shipped - self.asked

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {k: round(v, 4) if v is not None else None for k, v in asdict(self).items()}

    def line(self) -> str:
        """For people."""
        before = "" if self.before is None else f"{self.before:.2f} before the adaptation, "
        coarse = f"{self.asked:.2f} with coarse labels, " if self.asked != self.model else ""
        return (
            f"mIoU on {self.num_images} labelled images: {before}{self.model:.2f} in torch, "
            f"{coarse}{self.shipped:.2f} as shipped"
        )


def miou(images: Labelled, space: LabelSpace, label_map: LabelMap) -> float:
    """In percent, of what labels images, over all of them in one confusion matrix."""
    confusion = ConfusionMatrix(space.num_classes, space.ignore_index)
    for image, labels in images:
        confusion.update(labels, label_map(image))
    return 100 * confusion.scores().miou
