"""Time a function honestly: warm-up, every call counted, percentiles."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Timing:
    """Times of repeated calls.

    Attributes:
        p50_ms, p95_ms, p99_ms: percentiles of one call.
        per_second: calls a second over all of them.
        calls: how many were counted.
    """

    p50_ms: float
    p95_ms: float
    p99_ms: float
    per_second: float
    calls: int

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "p50_ms": round(self.p50_ms, 3),
            "p95_ms": round(self.p95_ms, 3),
            "p99_ms": round(self.p99_ms, 3),
            "per_second": round(self.per_second, 2),
            "calls": self.calls,
        }


def summarise(durations_ms: list[float]) -> Timing:
    """Percentiles and rate of measured calls."""
    p50, p95, p99 = (float(v) for v in np.percentile(durations_ms, (50, 95, 99)))
    return Timing(
        p50,
        p95,
        p99_ms=p99,
        per_second=1000 * len(durations_ms) / sum(durations_ms),
        calls=len(durations_ms),
    )


def paired_ratios(rates: Sequence[float], baseline: Sequence[float]) -> dict[str, Any]:
    """Median and all ratios to the baseline of the same round, for a record."""
    ratios = [rate / alone for rate, alone in zip(rates, baseline, strict=True)]
    return {
        "median": round(statistics.median(ratios), 4),
        "rounds": [round(ratio, 4) for ratio in ratios],
    }


def time_call(call: Callable[[], object]) -> float:
    """How long one call takes, in milliseconds."""
    start_ns = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start_ns) * 1e-6


def time_in_turn(
    calls: dict[str, Callable[[], object]], rounds: int, per_turn: int = 10
) -> dict[str, Timing]:
    """Time several functions in turns, so that a drift of the machine hits all alike.

    A turn begins with two calls that are not counted: thread pools of the function before keep
    spinning for a while, and caches are another's. The first round is not counted at all.

    Args:
        calls: what to time, by name.
        rounds: counted turns of each.
        per_turn: counted calls in a turn.
    """
    durations: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(1 + rounds):
        for name, call in calls.items():
            turn = [time_call(call) for _ in range(2 + per_turn)]
            if index > 0:
                durations[name] += turn[2:]
    return {name: summarise(values) for name, values in durations.items()}
