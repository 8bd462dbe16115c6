"""Percentiles and ratios against their definitions."""

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.measuring.distribution import distribution, paired_ratio
from benchmarks.measuring.table import ratio_text, share_text

DURATIONS = st.lists(st.floats(0.001, 1e4), min_size=1, max_size=60)


@given(DURATIONS)
def test_nothing_is_left_out(durations_ms):
    found = distribution(durations_ms)
    assert found.count == len(durations_ms)
    assert found.max_ms == max(durations_ms)
    assert found.p50_ms == pytest.approx(statistics.median(durations_ms))
    assert found.p50_ms <= found.p90_ms <= found.p95_ms <= found.p99_ms <= found.max_ms
    assert found.per_second == pytest.approx(1000 / statistics.fmean(durations_ms))


def test_jitter_is_the_change_from_call_to_call():
    assert distribution([10, 12, 10, 12]).jitter_ms == 2
    assert distribution([10, 10, 12, 12]).jitter_ms == pytest.approx(2 / 3)
    assert distribution([10]).jitter_ms == 0
    assert distribution([10, 12], [50, 50]).jitter_ms == 1  # between the turns others ran


def test_nothing_measured_is_an_error():
    with pytest.raises(ValueError, match="nothing was measured"):
        distribution([])
    with pytest.raises(ValueError, match="no round"):
        paired_ratio([], [])


@given(st.lists(st.floats(0.5, 2), min_size=5, max_size=20), st.floats(0.1, 10))
def test_a_drift_of_the_machine_leaves_the_ratio(drift, ratio):
    found = paired_ratio([ratio * one for one in drift], drift)
    assert found.median == pytest.approx(ratio)
    assert found.low == pytest.approx(ratio)
    assert found.high == pytest.approx(ratio)


def test_few_rounds_have_no_interval():
    found = paired_ratio([2.0, 4.0, 9.0, 8.0], [1.0, 2.0, 3.0, 4.0])
    assert (found.median, found.low, found.high) == (2.0, None, None)
    assert found.record() == {"median": 2.0, "low": None, "high": None, "rounds": [2, 2, 3, 2]}
    assert ratio_text({"ratio": found.record()}) == "2.00 (4 rounds)"
    share = paired_ratio([0.5], [1.0]).record()
    assert share_text({"share_of_engine": share}) == "50.0 (1 round)"
    five = {"ratio": paired_ratio([2.0] * 5, [1.0] * 5).record()}
    assert ratio_text(five) == "2.00 (2.00 to 2.00)"


def test_the_interval_holds_the_true_median_about_95_times_in_100():
    random, inside = np.random.default_rng(1), 0
    for _ in range(200):
        found = paired_ratio(random.normal(1.2, 0.1, 25).tolist(), [1.0] * 25)
        inside += found.low <= 1.2 <= found.high
    assert 0.9 < inside / 200 <= 1
