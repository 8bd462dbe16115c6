"""ReconnectingSource: a live source that is opened again when it is lost."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from runtime.buffer import Buffer
from runtime.errors import SourceError
from runtime.frames import Frame
from runtime.glibc_malloc import return_freed_memory
from runtime.sources.base import Source
from runtime.sources.watchdog import State, Watchdog, WatchdogLimits

logger = logging.getLogger(__name__)

Opener = Callable[[], Source]
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 2.0
_OPEN_S = 10.0  # longer than a library's own time-out; then it hangs
_LOOK_S = 0.1
_CLOSE_S = 1.0
# Connections whose library does not return; each holds memory, so no more are begun.
_MOST_HANGING = 3


def waits_s(uniform: Callable[[float, float], float] = random.uniform) -> Iterator[float]:
    """Seconds to wait before each attempt: doubled up to 2 s, each with jitter of a quarter.

    Jitter keeps many devices from asking a server that comes back all at once.
    """
    wait_s = FIRST_WAIT_S
    while True:
        yield wait_s * uniform(0.75, 1.25)
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)


class _Connection:
    """A source that a thread of its own opens, reads and closes: its library may hang."""

    def __init__(self, open_source: Opener) -> None:
        self._open = open_source
        self._source: Source | None = None
        self._opened: Buffer[Source] = Buffer(1, drop_oldest=False)
        self._frames: Buffer[Frame] = Buffer(1, drop_oldest=False)
        self._thread = threading.Thread(target=self._run, name="connection", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self._open() as self._source:
                source = self._source
                self._opened.put(source)
                while (frame := source.read()) is not None and self._frames.put(frame):
                    pass
            self._frames.close()
        except BaseException as error:  # handed to who waits for the source or the frame
            self._opened.close(error)
            self._frames.close(error)

    def source(self, timeout_s: float) -> Source | None:
        """The opened source, for its facts only.

        Raises:
            TimeoutError: it is not open yet.
            SourceError: it does not open.
        """
        return self._opened.get(timeout_s)

    def frame(self, timeout_s: float) -> Frame | None:
        """The next frame, or None at the end.

        Raises:
            TimeoutError: none came in time.
            SourceError: the source failed.
        """
        return self._frames.get(timeout_s)

    def abandon(self, wait_s: float = 0.0) -> None:
        """Let the thread close the source as soon as its library returns; wait so long for it."""
        self._opened.discard()
        self._frames.discard()
        # A source that is open, or what opens it, may hold a child process.
        for held in (self._source, self._open):
            if (interrupt := getattr(held, "interrupt", None)) is not None:
                interrupt()
        self._thread.join(wait_s)

    @property
    def damaged(self) -> int:
        """Frames of this connection that could not be decoded."""
        return 0 if self._source is None else self._source.damaged

    @property
    def hangs(self) -> bool:
        """Whether the thread has not ended."""
        return self._thread.is_alive()


class ReconnectingSource(Source):
    """Opens a live source, and opens it again whenever it fails, ends or gives no frame.

    Args:
        open_source: opens it once.
        limits: when it is stale, and when it is lost.
        most_attempts: to open it again, one after the other; None for no end.
        late_name: its name where it may open later: until then it is lost. None where it has to
            open at once.

    Raises:
        SourceError: it does not open the first time, and has to.

    Attributes:
        watchdog: its state.
        reconnects: how often it was opened again.
    """

    live = True

    def __init__(
        self,
        open_source: Opener,
        limits: WatchdogLimits,
        most_attempts: int | None = None,
        late_name: str | None = None,
    ) -> None:
        super().__init__()
        self._open, self._limits, self._most_attempts = open_source, limits, most_attempts
        self._interrupted = threading.Event()
        self._abandoned: list[_Connection] = []
        self._connection = _Connection(open_source)
        try:
            opened = self._first_opened()
            self.name, self.fps = opened.name, opened.fps
            self.watchdog = Watchdog(self.name, limits)
        except SourceError as error:
            if late_name is None:
                self._connection.abandon()
                raise
            self.name = late_name
            self.watchdog = Watchdog(late_name, limits)
            self.watchdog.lost(str(error))
        self.reconnects = self._attempts = self._damaged_before = 0
        self._opened_s, self._waits = time.monotonic(), waits_s()

    def _first_opened(self) -> Source:
        try:
            opened = self._connection.source(_OPEN_S)
        except TimeoutError:
            raise SourceError(f"the source does not answer within {_OPEN_S:g} s") from None
        if opened is None:
            raise AssertionError("a connection hands over its source or an error")
        return opened

    @property
    def state(self) -> State:
        """What it is doing, judged by our clock."""
        return self.watchdog.state

    def _frame(self) -> Frame | None:
        """The next frame, for which it may wait for hours; None after ``interrupt``."""
        while not self._interrupted.is_set():
            frame = self._frame_or_reconnect()
            if frame is not None:
                self.watchdog.frame(frame.sample())
                self._count += 1
                self.damaged = self._damaged_before + self._connection.damaged
                if self._attempts and time.monotonic() - self._opened_s > self._limits.lost_s:
                    self._attempts, self._waits = 0, waits_s()  # this connection holds
                return replace(frame, index=self._count - 1, state=str(self.watchdog.state))
        self.watchdog.ended()
        return None

    def _frame_or_reconnect(self) -> Frame | None:
        """A frame, or None once the source was opened again or the reader is interrupted."""
        began_s = time.monotonic()
        while not self._interrupted.is_set():
            try:
                frame = self._connection.frame(_LOOK_S)
                if frame is not None:
                    return frame
                reason = "the stream ended"
            except TimeoutError:
                if time.monotonic() - began_s < self._limits.lost_s:
                    continue
                reason = f"no frame for {self._limits.lost_s:g} s"
            except Exception as error:  # a library's own, too: this source is opened again
                reason = str(error)
            self.watchdog.lost(reason)
            self._reconnect(reason)
            return None
        return None

    def _reconnect(self, reason: str) -> None:
        """Open it again, with growing waits.

        Raises:
            SourceError: no attempt is left.
        """
        self._abandon()
        while not self._interrupted.is_set():
            if self._most_attempts is not None and self._attempts >= self._most_attempts:
                tried = f" after {self._attempts} attempts to open it again"
                raise SourceError(f"{self.name} is lost{tried if self._attempts else ''}: {reason}")
            self._attempts += 1
            if self._interrupted.wait(next(self._waits)):
                return
            if self._too_many_hang():
                reason = "earlier connections hang in their library"
                continue
            self.watchdog.opening()
            self._connection = _Connection(self._open)
            failure = self._failure_to_open()
            if self._interrupted.is_set():
                return
            if failure is None:
                self.reconnects += 1
                return_freed_memory()
                return
            reason = failure
            self.watchdog.lost(reason)
            self._abandon()

    def _failure_to_open(self) -> str | None:
        """Wait for the new connection; why it is not open, or None."""
        began_s = time.monotonic()
        while time.monotonic() - began_s < _OPEN_S and not self._interrupted.is_set():
            try:
                opened = self._connection.source(_LOOK_S)
            except TimeoutError:
                continue
            except Exception as error:  # a library's own, too: this source is tried again
                return str(error)
            if opened is not None:
                self._damaged_before, self._opened_s = self.damaged, time.monotonic()
                self.fps = opened.fps
            return None
        return f"does not answer within {_OPEN_S:g} s"

    def _abandon(self) -> None:
        self._connection.abandon()
        self._abandoned.append(self._connection)

    def _too_many_hang(self) -> bool:
        """Whether so many earlier connections have not ended that no new one is begun."""
        self._abandoned = [one for one in self._abandoned if one.hangs]
        self.hangs = len(self._abandoned) > _MOST_HANGING
        if not self.hangs:
            return False
        self.watchdog.lost(f"{len(self._abandoned)} earlier connections hang in their library")
        return True

    def rename(self, name: str) -> None:
        """Call it by the user's own name from now on."""
        super().rename(name)
        self.watchdog.rename(name)

    def interrupt(self) -> None:
        """Let ``read`` return at once."""
        self._interrupted.set()

    def close(self) -> None:
        """Let go of the source; a library that hangs is left to the process's end."""
        self.interrupt()
        super().close()

    def _release(self) -> None:
        self._connection.abandon(_CLOSE_S)
