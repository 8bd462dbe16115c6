"""What is called, in which order, and what is counted."""

import pytest

from benchmarks.measuring import closed_loop
from benchmarks.measuring.closed_loop import Effort, measure_in_turn


class Clock:
    """A clock that only calls move."""

    def __init__(self):
        self.ns = 0

    def perf_counter_ns(self):
        return self.ns

    def perf_counter(self):
        return self.ns * 1e-9


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(closed_loop, "time", clock)
    return clock


def calls_of(clock, log, **times_ms):
    def call(name, times):
        log.append(name)
        clock.ns += int(1e6 * times[min(log.count(name), len(times)) - 1])

    return {name: lambda n=name, t=times: call(n, t) for name, times in times_ms.items()}


def test_ways_take_turns_and_the_beginning_of_a_turn_is_not_counted(clock):
    log = []
    ways = calls_of(clock, log, a=[5], b=[20])
    found = measure_in_turn(ways, Effort(8, min_seconds=0, per_turn=4))
    warm_up = 2 * 4  # two windows that agree
    assert log == ["a"] * warm_up + ["b"] * warm_up + (["a"] * 6 + ["b"] * 6) * 2
    assert found["a"].latency.count == 8
    assert found["a"].latency.p50_ms == 5
    assert found["b"].ratio.rounds == pytest.approx((4.0, 4.0))
    assert found["a"].warm_up.calls == warm_up


def test_the_warm_up_ends_when_it_is_stable_or_its_time_is_over(clock):
    log = []
    slow_start = [50, 50, 50, 50, 10, 10, 10, 10, 10, 10, 10, 10]
    ways = calls_of(clock, log, a=slow_start)
    warm_up = measure_in_turn(ways, Effort(4, min_seconds=0, per_turn=4))["a"].warm_up
    assert warm_up.calls == 3 * 4
    assert warm_up.stable
    log = []
    never = calls_of(clock, log, a=[2.0**n for n in range(40)])
    effort = Effort(4, min_seconds=0, per_turn=4, warm_up_s=1)
    assert not measure_in_turn(never, effort)["a"].warm_up.stable


def test_rounds_go_on_until_calls_and_seconds_are_enough(clock):
    log = []
    effort = Effort(4, min_seconds=1.0, per_turn=4)
    found = measure_in_turn(calls_of(clock, log, a=[10], b=[100]), effort)
    assert found["a"].latency.count == 100
    assert found["b"].latency.count == 100
    assert found["b"].record()["ratio"]["median"] == pytest.approx(10)


def test_ratios_refer_to_the_named_way(clock):
    log = []
    ways = calls_of(clock, log, a=[5], b=[20])
    found = measure_in_turn(ways, Effort(4, min_seconds=0, per_turn=4), "b")
    assert found["a"].ratio.median == pytest.approx(0.25)


def test_a_slow_way_does_not_wait_for_a_fast_one_without_end(clock):
    log = []
    effort = Effort(4, min_seconds=10.0, most_seconds=5.0, per_turn=4)
    found = measure_in_turn(calls_of(clock, log, fast=[1], slow=[1000]), effort)
    # Ten seconds of warm-up at most, then rounds of 6 s until two times five are over.
    assert found["slow"].latency.count == found["fast"].latency.count == 8


def test_it_is_the_first_calls_of_a_turn_that_are_not_counted(clock):
    log = []
    times = [10] * 8 + [70, 50, 10, 10, 10, 10]  # the warm-up, then a turn
    found = measure_in_turn(calls_of(clock, log, a=times), Effort(4, min_seconds=0, per_turn=4))
    assert found["a"].latency.max_ms == 10
