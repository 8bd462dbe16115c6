"""LoopingSource: a file that starts again when it has ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from runtime.frames import Frame
from runtime.sources.base import Source


class LoopingSource(Source):
    """Opens a file again and again; frames are numbered on.

    Args:
        open_source: opens it once.

    Raises:
        SourceError: it does not open.
    """

    def __init__(self, open_source: Callable[[], Source]) -> None:
        super().__init__()
        self._open, self._source = open_source, open_source()
        self.name, self.fps, self.codec = self._source.name, self._source.fps, self._source.codec
        self._began_s = self._last_s = 0.0
        self._damaged_before = 0

    def _frame(self) -> Frame | None:
        frame = self._source.read()
        if frame is None:
            self._again()
            frame = self._source.read()
            if frame is None:
                raise AssertionError("a file without a frame is an error of its own")
        self._count_damaged()
        self._count += 1
        if frame.time_s is not None:
            self._last_s = self._began_s + frame.time_s
        time_s = None if frame.time_s is None else self._last_s
        return replace(frame, index=self._count - 1, time_s=time_s)

    def _count_damaged(self) -> None:
        self.damaged = self._damaged_before + self._source.damaged

    def _again(self) -> None:
        self._source.close()
        self._count_damaged()
        self._damaged_before = self.damaged
        self._began_s = self._last_s + (1 / self.fps if self.fps else 0.0)
        self._source = self._open()

    def interrupt(self) -> None:
        """Let a ``read`` that waits return."""
        self._source.interrupt()

    def _release(self) -> None:
        self._source.close()
