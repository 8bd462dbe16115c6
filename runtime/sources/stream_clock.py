"""StreamClock: when a network frame was captured, from the stream's own clock.

A frame that waits in network buffers is old when it arrives, and its arrival does not show that.
Its time stamp does: against the least delay that was seen, every other delay is age.

Clocks drift, so the least delay may rise by a thousandth of the time: a delay that stays is
forgotten by 3.6 s an hour.
"""

from __future__ import annotations

# Crystals differ by a ten-thousandth; cameras that count frames at 25 a second may send 24.98.
DRIFT = 1e-3
# A larger jump from one frame to the next is a new clock.
_JUMP_NS = 30 * 1_000_000_000
_NEW_CLOCK_FRAMES = 2


class StreamClock:
    """Turns time stamps into moments of our monotonic clock.

    The delay that every frame has, of camera and network, cannot be seen and is not counted.
    """

    def __init__(self) -> None:
        self._highest: tuple[int, float] | None = None  # delay and time stamp
        self._num_below = 0
        self._least: float | None = None
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
        if self._least is None or abs(delay_ns - last_delay_ns) > _JUMP_NS:
            self._least = delay_ns
            self._highest, self._num_below = (delay_ns, time_s), 0
        else:
            self._least += DRIFT * (arrived_ns - last_arrived_ns)
        self._least = min(self._least, delay_ns)
        self._last = arrived_ns, delay_ns
        return arrived_ns - round(delay_ns - self._least)

    def _follow_step_back(self, delay_ns: int, time_s: float) -> None:
        """Time stamps that stay below an earlier one are of a clock that was set back: ages go on.

        A single one below it may be of frames that change places.
        """
        if self._highest is None or self._least is None or time_s >= self._highest[1]:
            self._highest, self._num_below = (delay_ns, time_s), 0
            return
        self._num_below += 1
        if self._num_below < _NEW_CLOCK_FRAMES:
            return
        step_ns = delay_ns - self._highest[0]
        self._least += step_ns
        self._highest, self._num_below = (delay_ns, time_s), 0
