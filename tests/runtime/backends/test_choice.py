"""Which backend is the fastest, by a clock that the test turns."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from runtime.backends import choice
from runtime.backends.choice import fastest

IMAGE = np.zeros((4, 4, 3), np.uint8)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still but for what backends take."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(choice, "time", SimpleNamespace(perf_counter=lambda: now.seconds))
    return now


class Backend:
    """Takes so long for each inference, in turn; the last of them again and again."""

    def __init__(self, name, clock, *seconds):
        self.name, self._clock, self._seconds, self.count = name, clock, list(seconds), 0

    def outputs(self, image):
        assert image is IMAGE
        self._clock.seconds += self._seconds[min(self.count, len(self._seconds) - 1)]
        self.count += 1


def test_the_least_time_counts_whatever_disturbs_the_others(clock, caplog):
    caplog.set_level("INFO")
    slow = Backend("openvino", clock, 0.012)
    fast = Backend("onnxruntime", clock, 0.5, 0.3, 0.010, 0.2)
    assert fastest([slow, fast], IMAGE) is fast
    (line,) = caplog.messages
    assert line == "openvino 12.0 ms, onnxruntime 10.0 ms: onnxruntime takes the least time"


def test_a_disturbance_of_the_last_round_changes_nothing(clock):
    even = Backend("openvino", clock, 0.010)
    disturbed = Backend("onnxruntime", clock, 0.005, 0.005, 0.005, 0.012)
    assert fastest([even, disturbed], IMAGE) is disturbed
    assert disturbed.count > 3


def test_each_runs_some_in_a_row_and_slow_ones_no_more_than_these(clock):
    one, other = Backend("openvino", clock, 1.0), Backend("onnxruntime", clock, 2.0)
    assert fastest([one, other], IMAGE) is one
    assert (one.count, other.count) == (3, 3)


def test_quick_ones_take_turns_while_there_is_time(clock):
    one, other = Backend("openvino", clock, 0.01), Backend("onnxruntime", clock, 0.005)
    assert fastest([one, other], IMAGE) is other
    assert one.count == other.count == 12


def test_a_single_one_is_not_timed(clock, caplog):
    caplog.set_level("INFO")
    only = Backend("onnxruntime", clock, 1.0)
    assert fastest([only], IMAGE) is only
    assert (only.count, caplog.messages) == (0, [])
