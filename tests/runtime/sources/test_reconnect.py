"""A source that fails, ends, hangs, and comes back."""

import itertools
import threading
import time

import numpy as np
import pytest

from runtime.errors import SourceError
from runtime.sources import reconnect
from runtime.sources.base import ImageSource
from runtime.sources.reconnect import ReconnectingSource, waits_s
from runtime.sources.watchdog import State, WatchdogLimits

QUICK = WatchdogLimits(stale_s=0.1, lost_s=0.3)


class Camera(ImageSource):
    """Gives some frames, then does what it is told."""

    def __init__(self, frames, then):
        super().__init__()
        self.name, self.live, self.fps = "camera", True, 25.0
        self._frames, self._then, self.closed = frames, then, threading.Event()

    def _next_image(self):
        if self._count < self._frames:
            return np.full((8, 8, 3), self._count + 30, np.uint8)
        return self._then()

    def close(self):
        self.closed.set()


def fail():
    raise SourceError("unplugged")


def end():
    return None


class Rig:
    """Opens one camera after the other; ``None`` cannot be opened."""

    def __init__(self, *cameras):
        self._cameras = iter(cameras)
        self.opened = []

    def __call__(self):
        camera = next(self._cameras)
        self.opened.append((time.monotonic(), camera))
        if camera is None:
            raise SourceError("no such device")
        return camera


@pytest.mark.parametrize("then", [fail, end])
def test_it_is_opened_again_and_frames_go_on_counting(then, monkeypatch):
    returned = []
    monkeypatch.setattr(reconnect, "return_freed_memory", lambda: returned.append(1))
    rig = Rig(Camera(3, then), Camera(2, then), Camera(4, then))
    with ReconnectingSource(rig, QUICK) as source:
        frames = [source.read() for _ in range(9)]
    assert [frame.index for frame in frames] == list(range(9))
    assert [frame.image[0, 0, 0] for frame in frames] == [30, 31, 32, 30, 31, 30, 31, 32, 33]
    assert source.reconnects == 2
    assert source.watchdog.entered[State.LOST] == 2
    assert all(camera.closed.wait(1) for _, camera in rig.opened)
    assert len(returned) == 2, "what glibc keeps of each lost source would fill the memory"


def test_attempts_to_open_it_are_further_and_further_apart():
    rig = Rig(Camera(1, fail), None, None, None, Camera(1, fail))
    with ReconnectingSource(rig, QUICK) as source:
        source.read()
        assert source.read().index == 1
    gaps = np.diff([time_s for time_s, _ in rig.opened])
    assert source.reconnects == 1
    assert (gaps[1:] > 1.3 * gaps[:-1] * 0.75 / 1.25).all(), gaps
    assert gaps[0] >= 0.18


def test_waits_double_up_to_two_seconds_with_jitter_of_a_quarter():
    plain = list(itertools.islice(waits_s(lambda _low, _high: 1.0), 6))
    assert plain == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]
    drawn = [list(itertools.islice(waits_s(), 6)) for _ in range(200)]
    ratios = np.array(drawn) / plain
    assert 0.75 <= ratios.min() < 0.8
    assert 1.2 < ratios.max() <= 1.25


def test_when_no_attempt_is_left_the_error_names_the_last_reason():
    rig = Rig(Camera(1, fail), None, None)
    with ReconnectingSource(rig, QUICK, most_attempts=2) as source:
        source.read()
        with pytest.raises(SourceError, match=r"lost after 2 attempts.*no such device"):
            source.read()


def test_without_attempts_the_loss_itself_is_the_error():
    with ReconnectingSource(Rig(Camera(1, fail)), QUICK, most_attempts=0) as source:
        source.read()
        with pytest.raises(SourceError, match="camera is lost: unplugged"):
            source.read()


def test_the_first_time_it_has_to_open():
    with pytest.raises(SourceError, match="no such device"):
        ReconnectingSource(Rig(None), QUICK)


def test_one_that_may_open_later_is_lost_until_it_does():
    rig = Rig(None, None, Camera(2, fail))
    with ReconnectingSource(rig, QUICK, late_name="rear") as source:
        assert (source.name, source.fps, source.state) == ("rear", None, State.LOST)
        frame = source.read()
        assert (frame.index, frame.image[0, 0, 0], source.state) == (0, 30, State.LIVE)
        assert (source.name, source.fps, source.reconnects) == ("rear", 25.0, 1)


def test_one_that_may_open_later_ends_when_no_attempt_is_left():
    with (
        ReconnectingSource(Rig(None), QUICK, most_attempts=0, late_name="rear") as source,
        pytest.raises(SourceError, match="rear is lost: no such device"),
    ):
        source.read()


def test_a_package_that_is_missing_is_an_error_at_once():
    """A camera comes back, a package does not."""

    def missing():
        raise ModuleNotFoundError("No module named 'cv2'", name="cv2")

    with pytest.raises(ModuleNotFoundError, match="cv2"):
        ReconnectingSource(missing, QUICK, late_name="rear")


def test_one_that_hangs_at_the_start_may_open_later(monkeypatch):
    monkeypatch.setattr(reconnect, "_OPEN_S", 0.1)
    hang = threading.Event()
    cameras = iter([lambda: hang.wait(30) and Camera(1, fail), lambda: Camera(2, fail)])
    with ReconnectingSource(lambda: next(cameras)(), QUICK, late_name="rear") as source:
        assert source.state is State.LOST
        assert source.read().image[0, 0, 0] == 30
    hang.set()


def test_a_library_that_hangs_is_left_behind_and_its_source_closed_when_it_returns():
    hang = threading.Event()
    first = Camera(2, lambda: hang.wait(30) and None)
    with ReconnectingSource(Rig(first, Camera(5, fail)), QUICK) as source:
        for _ in range(2):
            source.read()
        start_s = time.monotonic()
        assert source.read().index == 2
        assert 0.3 <= time.monotonic() - start_s < 2
        assert not first.closed.is_set()
        hang.set()
        assert first.closed.wait(2)


def test_while_its_library_hangs_the_source_is_stale_by_our_clock():
    hang = threading.Event()
    source = ReconnectingSource(
        Rig(Camera(1, lambda: hang.wait(30) and None)), WatchdogLimits(0.2, 60)
    )
    with source:
        source.read()
        reader = threading.Thread(target=source.read)
        reader.start()
        time.sleep(0.3)
        assert source.state is State.STALE
        source.interrupt()
        reader.join(1)
        assert not reader.is_alive()
        hang.set()


def test_connections_that_hang_are_few():
    """A device that always hangs after a frame must not fill the memory with threads."""
    hang = threading.Event()
    cameras = [Camera(1, lambda: hang.wait(30) and None) for _ in range(40)]
    rig = Rig(*cameras)
    limits = WatchdogLimits(stale_s=0.02, lost_s=0.05)
    with ReconnectingSource(rig, limits) as source:
        reader = threading.Thread(target=lambda: [source.read() for _ in range(40)])
        reader.start()
        time.sleep(4.5)
        hanging = sum(thread.name == "connection" for thread in threading.enumerate())
        assert 3 <= hanging <= 5
        source.interrupt()
        reader.join(2)
        assert not reader.is_alive()
        hang.set()


@pytest.mark.parametrize("cameras", [(Camera(1, fail), None, None, None, None), (Camera(1, fail),)])
def test_interrupting_ends_a_wait_at_once(cameras):
    with ReconnectingSource(Rig(*cameras, *[None] * 20), QUICK) as source:
        source.read()
        found = []
        reader = threading.Thread(target=lambda: found.append(source.read()))
        reader.start()
        time.sleep(0.5)
        source.interrupt()
        reader.join(0.5)
        assert found == [None]
        assert source.state is State.ENDED


def test_attempts_are_counted_until_a_connection_holds():
    """It opens every time, and fails at once: the waits grow, and the limit is met."""
    rig = Rig(*[Camera(1, fail) for _ in range(9)])
    source = ReconnectingSource(rig, QUICK, most_attempts=3)
    with source, pytest.raises(SourceError, match="lost after 3 attempts"):
        [source.read() for _ in range(9)]
    gaps = np.diff([time_s for time_s, _ in rig.opened])
    assert len(gaps) == 3
    assert gaps[2] > 1.5 * gaps[0]


def test_an_error_of_a_library_is_a_loss_like_others():
    def crash():
        raise RuntimeError("a bug of the driver")

    rig = Rig(Camera(1, crash), Camera(2, fail))
    with ReconnectingSource(rig, QUICK) as source:
        assert [source.read().index for _ in range(3)] == [0, 1, 2]


def test_damage_is_counted_over_all_connections():
    one, two = Camera(2, fail), Camera(2, fail)
    one.damaged, two.damaged = 3, 4
    with ReconnectingSource(Rig(one, two), QUICK) as source:
        for _ in range(4):
            source.read()
        assert source.damaged == 7


def test_an_attempt_that_is_interrupted_is_no_reconnect():
    hang = threading.Event()

    def hanging_open():
        hang.wait(30)
        raise SourceError("too late")

    cameras = iter([lambda: Camera(1, fail), hanging_open])
    with ReconnectingSource(lambda: next(cameras)(), QUICK) as source:
        source.read()
        reader = threading.Thread(target=source.read)
        reader.start()
        time.sleep(0.8)
        source.interrupt()
        reader.join(2)
        assert source.reconnects == 0
        hang.set()
