"""Gate and Thresholds: what a bundle must reach, by precision."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sfda_edge.recipes.recipe import require

# A class of fewer pixels has an IoU that single pixels decide.
LEAST_SHARE = 0.001
# Fewer different frames do not show the range of activations.
LEAST_CALIBRATION_FRAMES = 8


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a candidate must reach.

    Attributes:
        label_agreement: share of pixels with the reference's label.
        class_iou: IoU with the reference of every class of at least ``LEAST_SHARE`` of the pixels.
        miou_loss: how many points of mIoU may be lost when there are labels.
        confidence_drift: how far the confidence, in [0, 1], may change on average, if asked for.
        health_drift: how far any part of the health vector may, as ``gate/parity.py`` measures it.
        golden_agreement: share of the golden frame's labels that a device's backend has to give.
            OpenVINO in bf16 gives 99.1 % of the packaged network's, in fp32 all.
    """

    label_agreement: float
    class_iou: float
    miou_loss: float
    confidence_drift: float = math.inf
    health_drift: float = math.inf
    golden_agreement: float = 0.995


_FP32 = Gate(
    label_agreement=0.9995,
    class_iou=0.99,
    miou_loss=0.1,
    confidence_drift=0.002,
    health_drift=0.001,
)
_FP16 = Gate(
    label_agreement=0.995,
    class_iou=0.95,
    miou_loss=0.5,
    confidence_drift=0.01,
    health_drift=0.02,
    golden_agreement=0.99,
)
_INT8 = Gate(
    label_agreement=0.985,
    class_iou=0.7,
    miou_loss=1.0,
    confidence_drift=0.05,
    health_drift=0.25,
    golden_agreement=0.97,
)


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What a bundle must reach.

    Attributes:
        gate_images: at most so many target frames, spread over the set, are compared.
        calibration_images: frames that int8 is calibrated on, other than those of the gate.
        qat_steps: of quantisation-aware fine-tuning, when int8 loses too much without; 0 for none.
        int8_time_ratio: a frame in int8 may take so much of its time in fp32, measured here, of
            the profile ``cpu``; 0 for no limit, as for a bundle of another machine.
        fp32, fp16, int8: thresholds of the comparison, a table each.
    """

    gate_images: int = 16
    calibration_images: int = 32
    qat_steps: int = 100
    int8_time_ratio: float = 1.0
    fp32: Gate = _FP32
    fp16: Gate = _FP16
    int8: Gate = _INT8

    def __post_init__(self) -> None:
        require(self.gate_images >= 1, "gate_images must be at least 1", self.gate_images)
        require(
            self.calibration_images >= LEAST_CALIBRATION_FRAMES,
            f"calibration_images must be at least {LEAST_CALIBRATION_FRAMES}",
            self.calibration_images,
        )
        require(self.qat_steps >= 0, "qat_steps must not be below 0", self.qat_steps)
        require(
            self.int8_time_ratio >= 0, "int8_time_ratio must not be below 0", self.int8_time_ratio
        )
        for precision in ("fp32", "fp16", "int8"):
            _require_possible(precision, self.gate(precision))

    def gate(self, precision: str) -> Gate:
        """The thresholds of a precision."""
        return {"fp32": self.fp32, "fp16": self.fp16, "int8": self.int8}[precision]


def _require_possible(precision: str, gate: Gate) -> None:
    """Check that a gate can be passed and can fail.

    Raises:
        ValueError: it cannot.
    """
    require(
        all(0 <= s <= 1 for s in (gate.label_agreement, gate.class_iou, gate.golden_agreement)),
        f"{precision}.label_agreement, {precision}.class_iou and {precision}.golden_agreement must "
        "be in [0, 1]",
    )
    losses = (gate.miou_loss, gate.confidence_drift, gate.health_drift)
    require(
        all(math.isfinite(loss) and loss >= 0 for loss in losses),
        f"{precision}.miou_loss, {precision}.confidence_drift and {precision}.health_drift must be "
        "finite and not below 0",
    )
