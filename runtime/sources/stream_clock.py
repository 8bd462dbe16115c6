"""StreamClock: when a network frame was captured, from the stream's own clock.

A frame that waits in network buffers is old when it arrives, and its arrival does not show that.
Its time stamp does: against the least delay that was seen, every other delay is age.

Clocks drift, and encoders pause without a gap in their time stamps, so the least delay may rise by
a thousandth of the time: a delay that stays is forgotten by 3.6 s an hour. A delay that rises by
the same amount minute after minute is drift, too: 29.97 frames a second are often sent as 30.
"""

from __future__ import annotations

from collections import deque

# How much of the time the least delay may rise: always, and where it does so steadily.
DRIFT, _MOST_DRIFT = 1e-3, 5e-3
_WINDOW_NS, _STEADY_WINDOWS = 60 * 1_000_000_000, 3
# A larger jump from one frame to the next is a new clock.
_JUMP_NS = 30 * 1_000_000_000
_NEW_CLOCK_FRAMES = 2


class _Drift:
    """How fast the least delay rises, from the least delays of the last minutes.

    Attributes:
        rate: per time, from ``DRIFT`` up.
    """

    def __init__(self, arrived_ns: int, delay_ns: int) -> None:
        self.rate = DRIFT
        self._slopes: deque[float] = deque(maxlen=_STEADY_WINDOWS)
        self._before: float | None = None
        self._least: float = delay_ns
        self._since_ns = arrived_ns

    def add(self, arrived_ns: int, delay_ns: int) -> None:
        """A frame arrived after this delay."""
        passed_ns = arrived_ns - self._since_ns
        if passed_ns > _WINDOW_NS:
            if self._before is not None:
                self._slopes.append((self._least - self._before) / passed_ns)
            self._before, self._least, self._since_ns = self._least, delay_ns, arrived_ns
            if len(self._slopes) == _STEADY_WINDOWS:
                # One rise among them is a delay, or a clock that was set back; drift is in all.
                self.rate = min(max(min(self._slopes), DRIFT), _MOST_DRIFT)
        self._least = min(self._least, delay_ns)


class StreamClock:
    """Turns time stamps into moments of our monotonic clock.

    The delay that every frame has, of camera and network, cannot be seen and is not counted.
    """

    def __init__(self) -> None:
        self._highest: tuple[int, float] | None = None  # delay and time stamp
        self._num_below = 0
        self._least = 0.0
        self._drift: _Drift | None = None
        self._last = (0, 0)  # arrival and delay of the frame before

    def captured_ns(self, arrived_ns: int, time_s: float) -> int:
        """When a frame was captured that arrived now.

        Args:
            arrived_ns: our monotonic clock.
            time_s: the frame's time stamp.
        """
        delay_ns = arrived_ns - round(time_s * 1e9)
        self._follow_step_back(delay_ns, time_s)
        last_arrived_ns, last_delay_ns = self._last
        if self._drift is None or abs(delay_ns - last_delay_ns) > _JUMP_NS:
            self._least, self._drift = delay_ns, _Drift(arrived_ns, delay_ns)
            self._highest, self._num_below = (delay_ns, time_s), 0
        else:
            self._least += self._drift.rate * (arrived_ns - last_arrived_ns)
            self._drift.add(arrived_ns, delay_ns)
        self._least = min(self._least, delay_ns)
        self._last = arrived_ns, delay_ns
        return arrived_ns - round(delay_ns - self._least)

    def _follow_step_back(self, delay_ns: int, time_s: float) -> None:
        """Time stamps that stay below an earlier one are of a clock that was set back: ages go on.

        A single one below it may be of frames that change places.
        """
        if self._highest is None or self._drift is None or time_s >= self._highest[1]:
            self._highest, self._num_below = (delay_ns, time_s), 0
            return
        self._num_below += 1
        if self._num_below < _NEW_CLOCK_FRAMES:
            return
        step_ns = delay_ns - self._highest[0]
        self._least += step_ns
        self._highest, self._num_below = (delay_ns, time_s), 0
