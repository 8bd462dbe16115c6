"""What repeated measurements say: percentiles without removing any, and ratios with an interval."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_PERCENTILES = (50, 90, 95, 99)
_RESAMPLES = 2000
_LEAST_ROUNDS = 5  # for an interval


@dataclass(frozen=True)
class Distribution:
    """Durations of repeated calls. None is left out: the tail is what a camera's user feels.

    Attributes:
        count: how many were measured.
        p50_ms, p90_ms, p95_ms, p99_ms, max_ms: percentiles of one call.
        jitter_ms: mean absolute difference between a call and the one before it in its turn.
        per_second: calls a second, had they followed each other without a pause.
    """

    count: int
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    jitter_ms: float
    per_second: float

    def record(self) -> dict[str, float | int]:
        """Plain values for JSON, rounded to microseconds."""
        return {name: round(value, 3) for name, value in asdict(self).items()}


def distribution(*turns_ms: Sequence[float]) -> Distribution:
    """Percentiles, jitter and rate of at least one duration.

    Args:
        *turns_ms: durations in milliseconds; those of a turn followed each other.

    Raises:
        ValueError: there is none.
    """
    durations_ms = [one for turn in turns_ms for one in turn]
    if not durations_ms:
        raise ValueError("nothing was measured")
    p50, p90, p95, p99 = (float(v) for v in np.percentile(durations_ms, _PERCENTILES))
    steps = np.abs(np.concatenate([np.diff(turn) for turn in turns_ms]))
    return Distribution(
        count=len(durations_ms),
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        max_ms=max(durations_ms),
        jitter_ms=float(steps.mean()) if len(steps) else 0.0,
        per_second=1000 * len(durations_ms) / sum(durations_ms),
    )


@dataclass(frozen=True)
class Ratio:
    """A ratio to a baseline that was measured in the same rounds.

    Attributes:
        median: of the rounds' ratios.
        low, high: where the median lies in 95 of 100 resamplings of the rounds (percentile
            bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13);
            None of fewer than five rounds, which say little about others.
        rounds: every ratio.
    """

    median: float
    low: float | None
    high: float | None
    rounds: tuple[float, ...]

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = {"median": self.median, "low": self.low, "high": self.high}
        rounded = {name: value and round(value, 4) for name, value in values.items()}
        return rounded | {"rounds": [round(ratio, 4) for ratio in self.rounds]}


def paired_ratio(values: Sequence[float], baseline: Sequence[float]) -> Ratio:
    """Each round's value divided by the same round's baseline.

    A drift of the machine from round to round hits both and leaves the ratio as it is.

    Raises:
        ValueError: the two have not the same number of rounds, or none.
    """
    ratios = [value / base for value, base in zip(values, baseline, strict=True)]
    if not ratios:
        raise ValueError("no round was measured")
    if len(ratios) < _LEAST_ROUNDS:
        return Ratio(statistics.median(ratios), None, None, rounds=tuple(ratios))
    drawn = np.random.default_rng(0).choice(ratios, (_RESAMPLES, len(ratios)))
    low, high = (float(v) for v in np.percentile(np.median(drawn, axis=1), (2.5, 97.5)))
    return Ratio(statistics.median(ratios), low, high, rounds=tuple(ratios))
