"""Ranges of activations on target frames: what the 255 levels of an int8 are spread over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from export.errors import ExportError
from export.graph.ort_session import largest_values, look_inside
from export.thresholds import LEAST_CALIBRATION_FRAMES

RULES = ("min-max", "percentile", "entropy")
_BINS, _LEVELS = 2048, 128
_PERCENTILE = 99.99
# Neighbouring pixels of photographs are alike; those of noise are not.
_LEAST_CORRELATION = 0.3

Limits = dict[str, float]


def require_frames(images: Sequence[np.ndarray]) -> None:
    """Calibration is as good as its frames.

    Args:
        images: (H, W, 3) uint8.

    Raises:
        ExportError: too few that differ, or noise: a model calibrated on random data is silently
            garbage.
    """
    different = len({image.tobytes() for image in images})
    if different < LEAST_CALIBRATION_FRAMES:
        raise ExportError(
            f"int8 calibration needs {LEAST_CALIBRATION_FRAMES} different target frames other than "
            f"those of the comparison; {different} are left for it; give "
            f"{2 * LEAST_CALIBRATION_FRAMES} or more with --images"
        )
    correlation = float(np.median([_neighbours(image) for image in images]))
    if correlation < _LEAST_CORRELATION:
        raise ExportError(
            f"the frames look like noise (neighbouring pixels correlate by {correlation:.2f}); "
            "int8 is calibrated on frames of where it will run: give them with --images"
        )


def _neighbours(image: np.ndarray) -> float:
    """Correlation of pixels with their right neighbours; 1 for a picture of one colour."""
    left, right = (part.astype(np.float32).ravel() for part in (image[:, :-1], image[:, 1:]))
    if left.std() == 0 or right.std() == 0:
        return 1.0
    return float(np.corrcoef(left, right)[0, 1])


def calibrate(
    graph: onnx.ModelProto, images: Sequence[np.ndarray], tensors: Sequence[str]
) -> dict[str, Limits]:
    """How far each tensor's values reach from 0, by every rule.

    Args:
        graph: in single precision.
        images: target frames, (H, W, 3) uint8.
        tensors: names.

    Returns:
        rule → tensor → limit L: the int8 levels are spread over [-L, L].

    Raises:
        ExportError: a value is NaN or infinite.
    """
    largest = largest_values(graph, images, tensors)
    if endless := [name for name, limit in largest.items() if not np.isfinite(limit)]:
        raise ExportError(f"the network's own values are not finite: {', '.join(endless[:3])}")
    histograms = {name: np.zeros(_BINS, np.int64) for name in tensors}
    for values in look_inside(graph, images, tensors):
        for name, value in values.items():
            histograms[name] += magnitudes(value, largest[name])
    width = {name: limit / _BINS for name, limit in largest.items()}
    return {
        "min-max": largest,
        "percentile": {n: width[n] * percentile_bins(h) for n, h in histograms.items()},
        "entropy": {n: width[n] * entropy_bins(h) for n, h in histograms.items()},
    }


def magnitudes(values: np.ndarray, limit: float) -> np.ndarray:
    """Histogram of |values| over [0, limit] in ``_BINS`` bins, without exact zeros.

    What a ReLU has cut off says nothing about where the levels should be.
    """
    if limit == 0:
        return np.zeros(_BINS, np.int64)
    found = np.abs(values[values != 0])
    bins = np.minimum((found * (_BINS / limit)).astype(np.int64), _BINS - 1)
    return np.bincount(bins, minlength=_BINS)


def percentile_bins(histogram: np.ndarray) -> int:
    """So many bins hold ``_PERCENTILE`` of the values."""
    total = histogram.sum()
    if total == 0:
        return _BINS
    return int(np.searchsorted(np.cumsum(histogram), total * _PERCENTILE / 100)) + 1


def entropy_bins(histogram: np.ndarray) -> int:
    """The cut at which ``_LEVELS`` levels keep most of what the values say.

    For every cut, values beyond it are clipped to it, the rest is quantised, and the two
    distributions are compared by KL divergence (Migacz, "8-bit inference with TensorRT", 2017).
    """
    if histogram.sum() == 0:
        return _BINS
    cuts = range(_LEVELS, _BINS + 1, 16)
    divergences = [_divergence(histogram, cut) for cut in cuts]
    return cuts[int(np.argmin(divergences))]


def _divergence(histogram: np.ndarray, cut: int) -> float:
    kept = histogram[:cut].astype(np.float64)
    reference = kept.copy()
    reference[-1] += histogram[cut:].sum()
    level = np.arange(cut) * _LEVELS // cut
    filled = kept > 0
    mass = np.bincount(level, kept, _LEVELS)
    bins = np.bincount(level, filled, _LEVELS)
    quantised = np.where(filled, (mass / np.maximum(bins, 1))[level], 0)
    p, q = reference / reference.sum(), quantised / max(quantised.sum(), 1)
    occurs = p > 0
    return float((p[occurs] * np.log(p[occurs] / np.maximum(q[occurs], 1e-12))).sum())
