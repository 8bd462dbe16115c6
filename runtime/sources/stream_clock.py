"""StreamClock: when a network frame was captured, from the stream's own clock.

A frame that waits in network buffers is old when it arrives, and its arrival does not show that.
Its time stamp does: against the least delay that was seen lately, every other delay is age.
"""

from __future__ import annotations

# The least delay of this time is the measure: clocks that drift by 100 millionths differ by 60 ms.
_WINDOW_NS = 300 * 1_000_000_000
# A larger jump is a new clock.
_JUMP_NS = 30 * 1_000_000_000
_NEW_CLOCK_FRAMES = 2


class StreamClock:
    """Turns time stamps into moments of our monotonic clock.

    The delay that every frame has, of camera and network, cannot be seen and is not counted.
    """

    def __init__(self) -> None:
        self._highest: tuple[int, float] | None = None  # delay and time stamp
        self._num_below = 0
        self._least: int | None = None
        self._least_before: int | None = None
        self._since_ns = 0

    def captured_ns(self, arrived_ns: int, time_s: float) -> int:
        """When a frame was captured that arrived now.

        Args:
            arrived_ns: our monotonic clock.
            time_s: the frame's time stamp.
        """
        delay_ns = arrived_ns - round(time_s * 1e9)
        self._follow_step_back(delay_ns, time_s)
        if self._least is None or abs(delay_ns - self._least) > _JUMP_NS:
            self._least, self._least_before, self._since_ns = delay_ns, None, arrived_ns
            self._highest, self._num_below = (delay_ns, time_s), 0
        elif arrived_ns - self._since_ns > _WINDOW_NS:
            self._least_before, self._least = self._least, delay_ns
            self._since_ns = arrived_ns
        self._least = min(self._least, delay_ns)
        before = self._least if self._least_before is None else self._least_before
        return arrived_ns - (delay_ns - min(self._least, before))

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
        if self._least_before is not None:
            self._least_before += step_ns
        self._highest, self._num_below = (delay_ns, time_s), 0
