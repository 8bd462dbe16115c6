"""Frames that waited in buffers, clocks that drift, and streams that begin anew."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.sources.stream_clock import DRIFT, StreamClock

SECOND_NS = 1_000_000_000


def ages_s(arrivals_s, times_s):
    clock = StreamClock()
    found = []
    for arrived_s, time_s in zip(arrivals_s, times_s, strict=True):
        arrived_ns = round(arrived_s * SECOND_NS)
        found.append((arrived_ns - clock.captured_ns(arrived_ns, time_s)) / SECOND_NS)
    return found


def test_a_backlog_that_grows_is_age():
    """Sent 25 a second, read 12.5 a second."""
    times_s = [index / 25 for index in range(100)]
    arrivals_s = [1000 + index / 12.5 for index in range(100)]
    ages = ages_s(arrivals_s, times_s)
    assert ages[0] == 0
    assert abs(ages[-1] - (99 / 25 - DRIFT * 99 / 12.5)) < 1e-6


def test_a_backlog_that_grows_beyond_half_a_minute_is_age_still():
    """Three frames a second arrive as one."""
    times_s = [index / 3 for index in range(100)]
    arrivals_s = [1000 + index for index in range(100)]
    ages = ages_s(arrivals_s, times_s)
    assert ages == sorted(ages)
    assert 65 < ages[-1] < 66


def test_a_delay_that_stays_is_age_for_hours():
    """Twenty seconds behind from the second minute on, a frame a second for three hours."""
    times_s = [float(index) for index in range(3 * 3600)]
    arrivals_s = [1000 + time_s + 20 * (time_s >= 60) for time_s in times_s]
    ages = ages_s(arrivals_s, times_s)
    assert max(ages[:60]) < 1e-6
    assert ages[-1] == pytest.approx(20 - DRIFT * (3 * 3600 - 60), abs=0.1)


@pytest.mark.parametrize(
    ("drift", "most_s"),
    [
        *[(drift, 1e-3) for drift in (-9e-4, -1e-4, 1e-4, 8e-4)],
        (30 / 29.97 - 1 + 1e-4, 0.1),
        (30 / 29.9 - 1, 1.0),
    ],
)
def test_a_drifting_clock_is_no_age(drift, most_s):
    """A day of one part in ten thousand, of 24.98 frames sent as 25, or 29.97 or 29.9 as 30."""
    times_s = [float(index) for index in range(24 * 3600)]
    ages = ages_s([1000 + time_s * (1 + drift) for time_s in times_s], times_s)
    assert max(ages) < most_s


def test_a_pause_of_the_encoder_is_forgotten():
    """It leaves no gap in the time stamps, so that nothing tells it from a delay that stays."""
    times_s = [float(index) for index in range(2 * 3600)]
    ages = ages_s([1000 + time_s + 4 * (time_s >= 600) for time_s in times_s], times_s)
    assert ages[600] == pytest.approx(4, abs=1e-2)
    assert max(ages[600 + 4000 :]) < 0.1


def test_a_stream_that_begins_anew_has_a_new_clock():
    ages = ages_s([1000, 1000.04, 1000.08, 1000.12], [500.0, 500.04, 0.0, 0.04])
    assert max(ages) < 1e-6


@pytest.mark.parametrize(("step_s", "age_s"), [(0.04, 0.5), (10, 0.5), (29, 0.5), (1000, 0)])
def test_a_clock_that_is_set_back_leaves_ages_as_they_were(step_s, age_s):
    """One that is set back by more than half a minute is of another stream."""
    times_s = [index / 25 for index in range(200)]
    arrivals_s = [1000 + time_s for time_s in times_s]
    arrivals_s[80:] = [arrived_s + 0.5 for arrived_s in arrivals_s[80:]]  # half a second behind
    set_back = [time_s - step_s * (index >= 100) for index, time_s in enumerate(times_s)]
    ages = ages_s(arrivals_s, set_back)
    assert max(ages[:80]) < 1e-6
    risen = [DRIFT * (0.5 + (index - 79) / 25) for index in range(80, 100)]
    assert ages[80:100] == pytest.approx([0.5 - rise for rise in risen])
    assert ages[101:] == pytest.approx([age_s] * 99, abs=0.05)


def test_frames_that_change_places_take_no_age_away():
    """Two seconds behind, and one pair in ten frames swapped."""
    times_s = [index / 25 for index in range(2000)]
    for place in range(5, 2000, 10):
        times_s[place], times_s[place + 1] = times_s[place + 1], times_s[place]
    arrivals_s = [1000 + index / 25 + 2 * (index >= 100) for index in range(2000)]
    ages = ages_s(arrivals_s, times_s)
    expected = [2.0 - DRIFT * index / 25 for index in range(100, 2000)]
    assert ages[100:] == pytest.approx(expected, abs=0.1)


@given(st.lists(st.tuples(st.floats(0.001, 2), st.floats(0, 5)), min_size=1, max_size=60))
def test_an_age_is_the_delay_above_the_least(steps):
    """Compared with the least of all delays so far, each of which has risen since."""
    time_s, arrivals, times, delays = 0.0, [], [], []
    for gap_s, delay_s in steps:
        time_s += gap_s
        arrived_s = max(1000 + time_s + delay_s, arrivals[-1] if arrivals else 0)
        times.append(time_s)
        arrivals.append(arrived_s)
        delays.append(arrived_s - time_s)
    for index, age in enumerate(ages_s(arrivals, times)):
        risen = (
            delay + DRIFT * (arrivals[index] - arrived_s)
            for delay, arrived_s in zip(delays[: index + 1], arrivals, strict=False)
        )
        assert abs(age - (delays[index] - min(risen))) < 1e-5
