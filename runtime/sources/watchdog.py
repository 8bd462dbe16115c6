"""Watchdog: what state a live source is in, judged by our own clock.

Libraries notice a dead camera late: with a read time-out of 3 s PyAV took 6 s and OpenCV 9 s. So
the times of frames are watched from outside.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np

logger = logging.getLogger(__name__)

# Black in limited range becomes 0, and what a covered lens adds is noise of a few levels.
_BLACK_LEVEL, _MOST_BRIGHT = 20, 0.005


class State(str, Enum):
    """What a source is doing."""

    OPENING = "opening"
    LIVE = "live"
    STALE = "stale"
    FROZEN = "frozen"
    BLACK = "black"
    LOST = "lost"
    ENDED = "ended"

    def __str__(self) -> str:
        return self.value


# While a source is away for hours, its failing attempts are logged so often.
SAY_EVERY_S = 60.0
WITHOUT_FRAMES = frozenset({State.OPENING, State.STALE, State.LOST})


@dataclass(frozen=True)
class WatchdogLimits:
    """When a source is no longer live.

    Attributes:
        stale_s: so long without a frame.
        lost_s: so long without a frame; then it is opened again.
        frozen_s: so long with the same picture.
        black_s: so long with a black picture.
    """

    stale_s: float = 1.0
    lost_s: float = 5.0
    frozen_s: float = 3.0
    black_s: float = 1.0


class Watchdog:
    """Follows one source; any thread may call it.

    Every transition is logged once and counted.

    Args:
        name: of the source, without a password.
        limits: when it is no longer live.
        clock: seconds, monotonic.

    Attributes:
        entered: how often each state was entered.
    """

    def __init__(
        self, name: str, limits: WatchdogLimits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._limits, self._clock = name, limits, clock
        self._lock = threading.RLock()
        self._state = State.OPENING
        self._frame_s = self._changed_s = self._bright_s = clock()
        self._sample: np.ndarray | None = None
        self._outage_s: float | None = None  # when the last frame before it came
        self._said_s = 0.0
        self.entered: Counter[State] = Counter({State.OPENING: 1})

    def rename(self, name: str) -> None:
        """Log under this name."""
        self._name = name

    @property
    def state(self) -> State:
        """The state now."""
        with self._lock:
            self._judge()
            return self._state

    def frame(self, sample: np.ndarray) -> None:
        """A frame has come.

        Args:
            sample: a grid of its pixels, uint8: the noise of a sensor changes any part of it.
        """
        same = self._sample is not None and np.array_equal(sample, self._sample)
        bright = np.count_nonzero(sample > _BLACK_LEVEL) > _MOST_BRIGHT * sample.size
        with self._lock:
            now_s = self._clock()
            if self._state in WITHOUT_FRAMES:  # what came before says nothing about this connection
                self._changed_s = self._bright_s = now_s
                self._enter(State.LIVE)
            self._frame_s = now_s
            if not same:
                self._sample, self._changed_s = sample, now_s
            if bright:
                self._bright_s = now_s
            self._judge()

    def opening(self) -> None:
        """The source is being opened."""
        with self._lock:
            self._enter(State.OPENING)

    def lost(self, reason: str) -> None:
        """The source has failed."""
        with self._lock:
            self._enter(State.LOST, reason)

    def ended(self) -> None:
        """The source has ended, or nobody wants its frames any more."""
        with self._lock:
            self._enter(State.ENDED)

    def _judge(self) -> None:
        """Compare the times with the limits."""
        if self._state in (State.OPENING, State.LOST, State.ENDED):
            return
        now_s, limits = self._clock(), self._limits
        without_s = now_s - self._frame_s
        if without_s >= limits.stale_s:
            self._enter(State.STALE, f"no frame for {limits.stale_s:g} s")
        elif self._frame_s - self._bright_s >= limits.black_s:
            self._enter(State.BLACK, f"black for {limits.black_s:g} s")
        elif self._frame_s - self._changed_s >= limits.frozen_s:
            self._enter(State.FROZEN, f"the same picture for {limits.frozen_s:g} s")
        else:
            self._enter(State.LIVE)

    def _enter(self, state: State, reason: str = "") -> None:
        if state is self._state:
            return
        self._log(state, reason)
        self._state = state
        self.entered[state] += 1

    def _log(self, state: State, reason: str) -> None:
        """One line for each change; of an outage's attempts one a minute."""
        now_s, text = self._clock(), f"{self._name}: {state}" + (f" ({reason})" if reason else "")
        if state is State.LIVE:
            outage_s, self._outage_s = self._outage_s, None
            after = "" if outage_s is None else f", after {now_s - outage_s:.1f} s without a frame"
            logger.info("%s%s", text, after)
        elif state in (State.OPENING, State.ENDED):
            logger.debug("%s", text)
        elif state is State.LOST and self._outage_s is not None and self._said_s:
            if now_s - self._said_s >= SAY_EVERY_S:
                self._said_s = now_s
                logger.warning("%s, %.0f s without a frame", text, now_s - self._outage_s)
        else:
            logger.warning("%s", text)
            if state in WITHOUT_FRAMES and self._outage_s is None:
                self._outage_s = self._frame_s
            self._said_s = now_s if state is State.LOST else 0.0
