"""ExportRecipe: what a bundle has to prove."""

from __future__ import annotations

import math
from dataclasses import dataclass

from export.gate.parity import Gate
from export.precision.calibration import LEAST_FRAMES
from sfda_edge.recipes.recipe import require

# What a gate forbids to be larger, in its order.
_AT_MOST = ("miou_loss", "confidence_drift", "health_drift")


@dataclass(frozen=True)
class ExportRecipe:
    """Thresholds of the gate, by precision.

    Attributes:
        gate_images: at most so many target frames, spread over the set, are compared.
        PRECISION_label_agreement: share of pixels with the model's own label.
        PRECISION_class_iou: IoU with the model of every class that is not too rare.
        PRECISION_miou_loss: points of mIoU that may be lost on labelled images.
        PRECISION_confidence_drift: mean absolute change of the confidence, if it is asked for.
        PRECISION_health_drift: mean change of any part of the health vector, if it is asked for:
            of entropy and shares in [0, 1], of channel means relative to their length.
        calibration_images: frames that int8 is calibrated on, other than those of the gate.
        int8_finetune_steps: how long the network learns to be quantised when it loses too much
            otherwise; 0 for never.
    """

    gate_images: int = 16
    fp32_label_agreement: float = 0.9995
    fp32_class_iou: float = 0.99
    fp32_miou_loss: float = 0.1
    fp32_confidence_drift: float = 0.002
    fp32_health_drift: float = 0.001
    fp16_label_agreement: float = 0.995
    fp16_class_iou: float = 0.95
    fp16_miou_loss: float = 0.5
    fp16_confidence_drift: float = 0.01
    fp16_health_drift: float = 0.02
    int8_label_agreement: float = 0.985
    int8_class_iou: float = 0.7
    int8_miou_loss: float = 1.0
    int8_confidence_drift: float = 0.05
    int8_health_drift: float = 0.25
    calibration_images: int = 32
    int8_finetune_steps: int = 100

    def __post_init__(self) -> None:
        require(self.gate_images >= 1, "gate_images must be at least 1", self.gate_images)
        require(
            self.calibration_images >= LEAST_FRAMES,
            f"calibration_images must be at least {LEAST_FRAMES}",
            self.calibration_images,
        )
        require(
            self.int8_finetune_steps >= 0,
            "int8_finetune_steps must not be below 0",
            self.int8_finetune_steps,
        )
        for precision in ("fp32", "fp16", "int8"):
            gate = self.gate(precision)
            require(
                0 <= gate.label_agreement <= 1 and 0 <= gate.class_iou <= 1,
                f"{precision}_label_agreement and {precision}_class_iou must be in [0, 1]",
            )
            drifts = gate.miou_loss, gate.confidence_drift, gate.health_drift
            names = ", ".join(f"{precision}_{name}" for name in _AT_MOST)
            require(
                all(math.isfinite(drift) and drift >= 0 for drift in drifts),
                f"{names} must be numbers of at least 0",
            )

    def gate(self, precision: str) -> Gate:
        """The thresholds of a precision."""
        return Gate(
            getattr(self, f"{precision}_label_agreement"),
            getattr(self, f"{precision}_class_iou"),
            *(getattr(self, f"{precision}_{name}") for name in _AT_MOST),
        )
