"""The gate: compare a graph with the model that it was made from, on the user's own images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from export.errors import ParityError
from export.gate.report import ParityReport
from export.graph.ort_session import GraphSession
from export.thresholds import Gate
from runtime.bundle.labels import LabelSpace
from runtime.confusion import ConfusionMatrix

# An image (H, W, 3) uint8 at the input size → the graph's outputs by name, without the batch axis.
Candidate = Callable[[np.ndarray], Mapping[str, np.ndarray]]
BORDER_PIXELS = 2


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
