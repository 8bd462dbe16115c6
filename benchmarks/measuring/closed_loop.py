"""Calls one after the other, as fast as they go, several ways in turn."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any, TypeVar

from benchmarks.measuring.distribution import Distribution, Ratio, distribution, paired_ratio

Call = Callable[[], object]
Frame = TypeVar("Frame")
_STABLE = 0.02  # the last two windows' medians differ by less


@dataclass(frozen=True)
class Effort:
    """How much is measured of each way.

    Attributes:
        min_calls: at least, in all rounds together.
        min_seconds: at least.
        most_seconds: of all ways together, for each way: rounds end then, whatever they have, so
            that a slow way does not wait hours for a fast one.
        per_turn: counted calls of one way before the next one's turn.
        warm_up_s: at most before the first round; it ends earlier when the way is stable.
    """

    min_calls: int = 60
    min_seconds: float = 5.0
    most_seconds: float = 60.0
    per_turn: int = 10
    warm_up_s: float = 10.0


@dataclass(frozen=True)
class WarmUp:
    """What went before the measurement.

    Attributes:
        calls, seconds: in all.
        stable: the last two windows' medians differed by less than 2 %.
    """

    calls: int
    seconds: float
    stable: bool


@dataclass(frozen=True)
class Measured:
    """One way's figures.

    Attributes:
        warm_up: before the first round.
        latency: of all counted calls.
        ratio: of the rounds' median times to the baseline's; below 1 is faster than it.
    """

    warm_up: WarmUp
    latency: Distribution
    ratio: Ratio

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **self.latency.record(),
            "ratio": self.ratio.record(),
            "warm_up_calls": self.warm_up.calls,
            "warm_up_s": round(self.warm_up.seconds, 2),
            "stable": self.warm_up.stable,
        }


def time_call(call: Call) -> float:
    """How long one call takes, in milliseconds of a monotonic clock.

    A call that starts work on a GPU has to wait for it itself.
    """
    start_ns = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start_ns) * 1e-6


def in_a_circle(answer: Callable[[Frame], object], frames: Iterable[Frame]) -> Call:
    """A call that answers the next frame each time, again from the first after the last."""
    following = cycle(frames)
    return lambda: answer(next(following))


def measure_in_turn(
    ways: Mapping[str, Call], effort: Effort, baseline: str | None = None
) -> dict[str, Measured]:
    """Measure several ways in turns, so that a drift of the machine hits all alike.

    Rounds follow until each way has enough calls and seconds. A turn begins with two calls that
    are not counted: threads of the way before keep spinning for a while, and caches are another's.

    Args:
        ways: what to measure, by name. Each call waits for its result.
        effort: how much.
        baseline: the way that ratios refer to; the first by default.
    """
    baseline = next(iter(ways)) if baseline is None else baseline
    warm_ups = {name: _warm_up(call, effort) for name, call in ways.items()}
    rounds: dict[str, list[list[float]]] = {name: [] for name in ways}
    end_s = time.perf_counter() + len(ways) * effort.most_seconds
    while not all(_enough(turns, effort) for turns in rounds.values()):
        if time.perf_counter() > end_s and all(rounds.values()):
            reason = f"{effort.most_seconds:g} s a way were over"
            print(f"ended after {len(rounds[baseline])} rounds: {reason}", file=sys.stderr)
            break
        for name, call in ways.items():
            turn = [time_call(call) for _ in range(2 + effort.per_turn)]
            rounds[name].append(turn[2:])
    medians = {name: [statistics.median(turn) for turn in turns] for name, turns in rounds.items()}
    return {
        name: Measured(
            warm_ups[name],
            distribution(*turns),
            paired_ratio(medians[name], medians[baseline]),
        )
        for name, turns in rounds.items()
    }


def _enough(turns: list[list[float]], effort: Effort) -> bool:
    calls, seconds = sum(map(len, turns)), sum(map(sum, turns)) / 1000
    return calls >= effort.min_calls and seconds >= effort.min_seconds


def _warm_up(call: Call, effort: Effort) -> WarmUp:
    """Call until the medians of two windows agree, or until the time is over."""
    began_s = time.perf_counter()
    calls, before, stable = 0, float("inf"), False
    while not stable and time.perf_counter() - began_s < effort.warm_up_s:
        median = statistics.median(time_call(call) for _ in range(effort.per_turn))
        calls += effort.per_turn
        stable, before = abs(median - before) < _STABLE * median, median
    return WarmUp(calls, time.perf_counter() - began_s, stable=stable)
