"""The states of a source, with a clock of the test's own."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.sources.watchdog import State, Watchdog, WatchdogLimits

LIMITS = WatchdogLimits(stale_s=1.0, lost_s=5.0, frozen_s=3.0, black_s=1.0)


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def watchdog(clock):
    return Watchdog("camera", LIMITS, clock)


def picture(level):
    return np.full((48, 64, 3), level, np.uint8)


def play(watchdog, clock, levels, period_s=0.1):
    for level in levels:
        clock.now_s += period_s
        watchdog.frame(picture(level))


def test_it_opens_then_lives(watchdog, clock):
    assert watchdog.state is State.OPENING
    play(watchdog, clock, [100, 101, 102])
    assert watchdog.state is State.LIVE


def test_no_frame_is_stale_at_the_limit_and_live_again_with_the_next(watchdog, clock):
    play(watchdog, clock, [100])
    clock.now_s += 0.99
    assert watchdog.state is State.LIVE
    clock.now_s += 0.02
    assert watchdog.state is State.STALE
    play(watchdog, clock, [101])
    assert watchdog.state is State.LIVE


def test_the_same_picture_is_frozen_and_a_changed_pixel_is_not(watchdog, clock):
    play(watchdog, clock, [100] * 30)
    assert watchdog.state is State.LIVE
    play(watchdog, clock, [100] * 2)
    assert watchdog.state is State.FROZEN
    moved = picture(100)
    moved[8, 16, 1] = 101
    watchdog.frame(moved)
    assert watchdog.state is State.LIVE


def test_darkness_with_the_noise_of_a_sensor_is_black(watchdog, clock):
    random = np.random.default_rng(0)
    for _ in range(12):
        clock.now_s += 0.1
        watchdog.frame(random.integers(0, 12, (48, 64, 3)).astype(np.uint8))
    assert watchdog.state is State.BLACK


def test_a_night_with_a_few_lights_is_not_black(watchdog, clock):
    image = picture(3)
    image[8:16, 8:16] = 200
    for _ in range(12):
        clock.now_s += 0.1
        watchdog.frame(image)
    assert watchdog.state is State.LIVE


def test_a_lost_source_stays_lost_until_it_is_opened(watchdog, clock):
    play(watchdog, clock, [100])
    watchdog.lost("unplugged")
    clock.now_s += 100
    assert watchdog.state is State.LOST
    watchdog.opening()
    assert watchdog.state is State.OPENING
    play(watchdog, clock, [100])
    assert watchdog.state is State.LIVE


def test_a_picture_that_was_shown_before_the_loss_does_not_count_as_frozen(watchdog, clock):
    play(watchdog, clock, [100] * 20)
    watchdog.lost("unplugged")
    clock.now_s += 50
    play(watchdog, clock, [100] * 5)
    assert watchdog.state is State.LIVE


def test_each_transition_is_logged_once_with_its_reason(watchdog, clock, caplog):
    caplog.set_level(logging.INFO)
    play(watchdog, clock, [100, 101])
    clock.now_s += 2
    for _ in range(5):
        assert watchdog.state is State.STALE
    play(watchdog, clock, [102, 103])
    assert caplog.messages == [
        "camera: live",
        "camera: stale (no frame for 1 s)",
        "camera: live, after 2.1 s without a frame",
    ]
    assert watchdog.entered == {State.OPENING: 1, State.LIVE: 2, State.STALE: 1}


def test_an_outage_of_many_attempts_is_logged_once_a_minute(watchdog, clock, caplog):
    caplog.set_level(logging.INFO)
    play(watchdog, clock, [100])
    for _ in range(100):
        clock.now_s += 1.5
        watchdog.lost("refused")
        watchdog.opening()
    clock.now_s += 0.5
    watchdog.frame(picture(101))
    assert caplog.messages == [
        "camera: live",
        "camera: lost (refused)",
        "camera: lost (refused), 62 s without a frame",
        "camera: lost (refused), 122 s without a frame",
        "camera: live, after 150.5 s without a frame",
    ]
    play(watchdog, clock, [102])
    watchdog.lost("unplugged")
    assert caplog.messages[-1] == "camera: lost (unplugged)"


@given(st.lists(st.tuples(st.floats(0.01, 4), st.integers(0, 255)), max_size=40))
def test_states_follow_from_the_times_alone(frames):
    """Compared with a reading of the whole history, for any frames at any times."""
    clock = Clock()
    watchdog = Watchdog("camera", LIMITS, clock)
    history = []
    for gap_s, level in frames:
        clock.now_s += gap_s / 2
        if history:  # asked in the middle of every gap
            expected = State.STALE if gap_s / 2 >= LIMITS.stale_s else None
            assert (watchdog.state is State.STALE) == (expected is State.STALE)
        stale = bool(history) and watchdog.state is State.STALE
        clock.now_s += gap_s / 2
        stale = stale or (bool(history) and watchdog.state is State.STALE)
        watchdog.frame(picture(level))
        history = [*([] if stale else history), (clock.now_s, level)]
        assert watchdog.state is expected_state(history)


def expected_state(history):
    """From (time, level) of a connection's frames without a gap."""
    now_s, start_s = history[-1][0], history[0][0]
    bright = [time_s for time_s, level in history if level > 20]
    changed = [
        history[i][0] for i in range(len(history)) if not i or history[i][1] != history[i - 1][1]
    ]
    if now_s - (bright[-1] if bright else start_s) >= LIMITS.black_s:
        return State.BLACK
    if now_s - changed[-1] >= LIMITS.frozen_s:
        return State.FROZEN
    return State.LIVE
