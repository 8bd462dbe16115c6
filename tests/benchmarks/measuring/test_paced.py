"""A camera that does not wait, against a simulation written another way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.measuring.paced import measure_paced


def paced(durations_s, rate):
    now, left = [0.0], list(durations_s)

    def call():
        now[0] += left.pop(0) if left else 0.001

    def sleep(seconds):
        now[0] += seconds

    return measure_paced(call, rate, len(durations_s), now_s=lambda: now[0], sleep=sleep)


def test_a_fast_model_answers_every_frame_in_its_own_time():
    found = paced([0.02] * 10, 10)
    assert (found.frames, found.dropped, found.late, found.missed) == (10, 0, 0, 0)
    assert found.age.count == 10
    assert found.age.p50_ms == pytest.approx(20)


def test_a_slow_model_answers_the_newest_frame():
    found = paced([0.25] * 10, 10)
    # Frames 0, 2, 5, 7 are taken at 0, 0.25, 0.5, 0.75 s, and 9 at 1.0 s.
    assert found.age.count == 5
    assert found.dropped == 5
    assert found.late == 5
    assert found.age.max_ms == pytest.approx(350, abs=1)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=30))
def test_every_frame_is_answered_or_dropped(times_ms):
    found = paced([one / 1000 for one in times_ms], 10)
    assert found.frames == found.age.count + found.dropped == len(times_ms)
    assert 0 <= found.late <= found.age.count
    assert found.missed == found.dropped + found.late


def test_an_answer_after_the_next_frame_has_arrived_is_late():
    found = paced([0.15, 0.02, 0.02, 0.02], 10)
    # Frame 1 arrived at 0.1 s and is answered from 0.15 s on.
    assert (found.dropped, found.late, found.missed) == (0, 1, 1)
    assert found.age.max_ms == pytest.approx(150)
