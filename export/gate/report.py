"""ParityReport: how far a graph agrees with its model, and whether that is enough."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from export.thresholds import LEAST_SHARE, Gate


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """How far a candidate's outputs agree with the reference's.

    Attributes:
        label_agreement: share of pixels with the same label, over all images, in [0, 1].
        worst_image: the same for the image that agrees least.
        border_agreement: the same within ``BORDER_PIXELS`` (``gate/parity.py``) of where the
            reference's label changes.
        interior_agreement: the same elsewhere; None where all is border.
        class_iou: IoU between the two of every class that either of them sees.
        class_share: of the reference's pixels.
        confidence_drift: mean absolute change of the confidence, in [0, 1]; None without one.
        health_drift: of each part of the health vector, as ``gate/parity.py`` measures it; empty
            without one.
        miou_change: candidate minus reference in points of mIoU; None where nobody gave labels.
        not_finite: outputs of the candidate that held NaN or infinity.
        num_images: how many images were compared.
        gate: what must be reached.
    """

    label_agreement: float
    worst_image: float
    border_agreement: float | None
    interior_agreement: float | None
    class_iou: dict[str, float]
    class_share: dict[str, float]
    confidence_drift: float | None
    health_drift: dict[str, float]
    miou_change: float | None
    not_finite: tuple[str, ...]
    num_images: int
    gate: Gate

    @property
    def lowest_class(self) -> str:
        """The class with the lowest IoU among those that are not too rare to tell."""
        telling = [n for n, share in self.class_share.items() if share >= LEAST_SHARE]
        return min(telling, key=lambda name: self.class_iou[name])

    @property
    def worst_health(self) -> tuple[str, float]:
        """The part of the health vector that changes most, and how far."""
        return max(self.health_drift.items(), key=lambda item: item[1])

    def failures(self) -> list[str]:
        """What does not reach the gate, in words."""
        failures = [f"{name} holds NaN or infinite values" for name in self.not_finite]
        if self.label_agreement < self.gate.label_agreement:
            failures.append(
                f"label agreement {100 * self.label_agreement:.3f} %, "
                f"at least {100 * self.gate.label_agreement:g} % needed"
            )
        lowest = self.class_iou[self.lowest_class]
        if lowest < self.gate.class_iou:
            failures.append(
                f"class {self.lowest_class}: IoU {lowest:.4f} with the reference, "
                f"at least {self.gate.class_iou:g} needed"
            )
        if self.confidence_drift is not None and self.confidence_drift > self.gate.confidence_drift:
            failures.append(
                f"confidence changes by {self.confidence_drift:.4f}; at most "
                f"{self.gate.confidence_drift:g} allowed"
            )
        if self.health_drift and self.worst_health[1] > self.gate.health_drift:
            part, drift = self.worst_health
            failures.append(
                f"health's {part} changes by {drift:.4f}; at most {self.gate.health_drift:g} "
                "allowed"
            )
        if self.miou_change is not None and self.miou_change < -self.gate.miou_loss:
            failures.append(
                f"mIoU dropped {-self.miou_change:.2f} points; at most {self.gate.miou_loss:g} "
                "allowed"
            )
        return failures

    @property
    def passed(self) -> bool:
        """Whether the candidate may be shipped."""
        return not self.failures()

    @property
    def rank_key(self) -> tuple[int, float]:
        """To choose the better of two: fewer failures first, then label agreement."""
        return -len(self.failures()), self.label_agreement

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return _rounded(asdict(self))

    def line(self) -> str:
        """The result for people."""
        parts = [
            f"label agreement {100 * self.label_agreement:.3f} % over {self.num_images} images "
            f"(at least {100 * self.gate.label_agreement:g} %)",
            f"worst image {100 * self.worst_image:.3f} %",
        ]
        if self.border_agreement is not None and self.interior_agreement is not None:
            parts.append(
                f"borders {100 * self.border_agreement:.2f} %, inside "
                f"{100 * self.interior_agreement:.3f} %"
            )
        lowest = self.class_iou[self.lowest_class]
        parts.append(f"lowest class {self.lowest_class} (IoU {lowest:.4f})")
        if self.confidence_drift is not None:
            parts.append(f"confidence changes by {self.confidence_drift:.4f}")
        if self.health_drift:
            part, drift = self.worst_health
            parts.append(f"health by {drift:.4f} ({part})")
        if self.miou_change is not None:
            parts.append(f"mIoU {self.miou_change:+.2f}")
        return ", ".join(parts)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return round(value, 6) if isinstance(value, float) else value
