"""What labels on the network's own grid cost in agreement, and gain in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx

from export.gate.parity import compare
from export.graph.ort_session import GraphSession, median_ms
from export.thresholds import Gate
from runtime.bundle.labels import LabelSpace

_NO_GATE = Gate(label_agreement=0.0, class_iou=0.0, miou_loss=float("inf"))


@dataclass(frozen=True)
class ArgmaxCost:
    """Coarse labels against labels at full size, of one network on the same frames.

    Attributes:
        label_agreement, border_agreement: share of pixels with the same label.
        coarse_ms, full_ms: median time of a frame in ONNX Runtime here, measured in turn.
    """

    label_agreement: float
    border_agreement: float | None
    coarse_ms: float
    full_ms: float

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {k: None if v is None else round(v, 6) for k, v in asdict(self).items()}

    def line(self) -> str:
        """For people."""
        return (
            f"coarse labels: {100 * self.label_agreement:.2f} % of full-size labels, "
            f"{self.coarse_ms:.1f} ms instead of {self.full_ms:.1f} ms"
        )


def measure_argmax_cost(
    coarse: onnx.ModelProto,
    full: onnx.ModelProto,
    images: Sequence[np.ndarray],
    space: LabelSpace,
) -> ArgmaxCost:
    """Compare and time two graphs of one network on images (H, W, 3) uint8."""
    with_full, with_coarse = GraphSession(full), GraphSession(coarse)
    references = [with_full(image) for image in images]
    report = compare(references, with_coarse, images, space=space, gate=_NO_GATE)
    coarse_ms, full_ms = median_ms((coarse, full), images)
    return ArgmaxCost(
        report.label_agreement,
        report.border_agreement,
        coarse_ms,
        full_ms,
    )
