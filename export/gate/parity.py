"""The gate: compare a graph with the model that it was made from, on the user's own images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from export.errors import ParityError
from export.graph.ort_session import GraphSession
from runtime.bundle.labels import LabelSpace
from runtime.confusion import ConfusionMatrix

# An image (H, W, 3) uint8 at the input size → the graph's outputs by name, without the batch axis.
Candidate = Callable[[np.ndarray], Mapping[str, np.ndarray]]
BORDER_PIXELS = 2
# A class of fewer pixels has an IoU that single pixels decide.
LEAST_SHARE = 0.001


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a candidate must reach.

    Attributes:
        label_agreement: share of pixels with the reference's label.
        class_iou: IoU with the reference of every class of at least ``LEAST_SHARE`` of the pixels.
        miou_loss: how many points of mIoU may be lost when there are labels.
        confidence_drift: how far the confidence, in [0, 1], may change on average, if asked for.
        health_drift: how far any part of the health vector may, in the measure of ``_change``.
    """

    label_agreement: float
    class_iou: float
    miou_loss: float
    confidence_drift: float = math.inf
    health_drift: float = math.inf


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """How far a candidate's outputs agree with the reference's.

    Attributes:
        label_agreement: share of pixels with the same label, over all images, in [0, 1].
        worst_image: the same for the image that agrees least.
        border_agreement: the same within ``BORDER_PIXELS`` of where the reference's label changes.
        interior_agreement: the same elsewhere; None where all is border.
        class_iou: IoU between the two of every class that either of them sees.
        class_share: of the reference's pixels.
        confidence_drift: mean absolute change of the confidence, in [0, 1]; None without one.
        health_drift: of each part of the health vector, see ``_change``; empty without one.
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


def compare(
    references: Sequence[Mapping[str, np.ndarray]],
    candidate: Candidate,
    images: Sequence[np.ndarray],
    *,
    space: LabelSpace,
    gate: Gate,
    health_layout: Mapping[str, int] | None = None,
) -> ParityReport:
    """Run the candidate on images and compare its outputs with the reference's.

    Args:
        references: the reference's outputs, image by image.
        candidate: what is compared.
        images: (H, W, 3) uint8 at the input size.
        space: of the labels.
        gate: what must be reached.
        health_layout: length of each part of the output ``health``, where there is one.

    Raises:
        ValueError: there are no images.
    """
    if not images:
        raise ValueError("parity needs at least one image")
    tally = _Tally(space, health_layout or {})
    for reference, image in zip(references, images, strict=True):
        tally.add(reference, candidate(image))
    return tally.report(gate)


class _Tally:
    """Counts image by image."""

    def __init__(self, space: LabelSpace, health_layout: Mapping[str, int]) -> None:
        self.space, self.health_layout = space, health_layout
        self.between = ConfusionMatrix(space.num_classes, space.ignore_index)
        self.agreements: list[float] = []
        self.border, self.interior = [0, 0], [0, 0]  # agreeing, all
        self.drifts: list[float] = []
        self.health_drifts: dict[str, list[float]] = {part: [] for part in health_layout}
        self.not_finite: set[str] = set()

    def add(self, reference: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> None:
        both = reference, found
        expected, predicted = (outputs["label_map"] for outputs in both)
        same = expected == predicted
        self.between.update(expected, predicted)
        self.agreements.append(float(same.mean()))
        near = border_band(expected, BORDER_PIXELS)
        for counts, where in ((self.border, near), (self.interior, ~near)):
            counts[0] += int(same[where].sum())
            counts[1] += int(where.sum())
        self.not_finite |= {name for name, value in found.items() if not np.isfinite(value).all()}
        if "confidence" in reference:
            change = reference["confidence"].astype(np.float32) - found["confidence"]
            self.drifts.append(float(np.abs(change).mean()) / 255)
        start = 0
        for part, length in self.health_layout.items():
            before, after = (outputs["health"][start : start + length] for outputs in both)
            self.health_drifts[part].append(_change(part, before, after))
            start += length

    def report(self, gate: Gate) -> ParityReport:
        names = self.space.names
        iou = self.between.scores().iou
        pixels = self.between.counts.sum(1)
        return ParityReport(
            label_agreement=float(np.mean(self.agreements)),
            worst_image=min(self.agreements),
            border_agreement=_share(self.border),
            interior_agreement=_share(self.interior),
            class_iou={n: float(i) for n, i in zip(names, iou, strict=True) if not np.isnan(i)},
            class_share={
                n: float(p / pixels.sum())
                for n, p, i in zip(names, pixels, iou, strict=True)
                if not np.isnan(i)
            },
            confidence_drift=float(np.mean(self.drifts)) if self.drifts else None,
            health_drift={part: float(np.mean(v)) for part, v in self.health_drifts.items()},
            miou_change=None,
            not_finite=tuple(sorted(self.not_finite)),
            num_images=len(self.agreements),
            gate=gate,
        )


def _change(part: str, before: np.ndarray, after: np.ndarray) -> float:
    """How far a part of the health vector changes.

    Channel means, whose unit is the layer's own: the change's length over that of what was there.
    Shares and entropy: half the sum of absolute changes of a histogram, the change of the others.
    """
    change = after - before
    if part.startswith("channel_means"):
        return float(np.linalg.norm(change)) / (float(np.linalg.norm(before)) or 1.0)
    return float(np.abs(change).sum()) / (2 if len(before) > 1 else 1)


def _share(counts: list[int]) -> float | None:
    return counts[0] / counts[1] if counts[1] else None


def border_band(labels: np.ndarray, width: int) -> np.ndarray:
    """Pixels of a label map (H, W) with another label within ``width`` rows or columns: bool."""
    near = np.zeros(labels.shape, bool)
    for step in range(1, width + 1):
        below = labels[step:] != labels[:-step]
        right = labels[:, step:] != labels[:, :-step]
        near[step:] |= below
        near[:-step] |= below
        near[:, step:] |= right
        near[:, :-step] |= right
    return near


def require_same_in_a_batch(
    session: GraphSession, images: Sequence[np.ndarray], gate: Gate
) -> None:
    """Check that an image's labels do not depend on the other images of a batch.

    Args:
        session: of a graph with a dynamic batch.
        images: (H, W, 3) uint8.
        gate: says how many labels may differ.

    Raises:
        ParityError: they do.
    """
    # The negative of an image surely differs from it, where one is all there is.
    together = np.stack([images[0], 255 - images[0], images[-1]])
    found = session.of_batch(together)["label_map"]
    alone = np.stack([session(image)["label_map"] for image in together])
    agreement = float((found == alone).mean())
    if agreement < gate.label_agreement:
        raise ParityError(
            f"in a batch of {len(together)} images the graph gives {100 * agreement:.3f} % of the "
            "labels that it gives one by one: the network mixes the images of a batch. Export "
            "without --dynamic-batch"
        )


def require(report: ParityReport, what: str) -> None:
    """The gate.

    Raises:
        ParityError: something is below its threshold.
    """
    if failures := report.failures():
        raise ParityError(f"{what} differs from the model: {'; '.join(failures)} ({report.line()})")
