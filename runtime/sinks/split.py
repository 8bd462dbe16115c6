"""SplitSink: a new file every so many minutes, for streams that run for weeks."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from runtime.frames import Segmentation
from runtime.sinks import Sink


class SplitSink:
    """Writes to one sink after the other.

    A file is begun with the first result after its time has come. While the name would be that of a
    file that is there, such as in the hour that a clock is set back, the old one goes on: nothing
    is overwritten.

    Args:
        name: the name of a file that is begun now.
        make: opens the sink of a file.
        period_s: how long each file is.
        clock: seconds, monotonic.

    Raises:
        SinkError: the first file does not open.
    """

    def __init__(
        self,
        name: Callable[[], Path],
        make: Callable[[Path], Sink],
        *,
        period_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._make, self._period_s, self._clock = name, make, period_s, clock
        self._sink = make(name())
        self._next_s = clock() + period_s

    def write(self, result: Segmentation) -> None:
        """Write one result, into a new file where its time has come.

        Raises:
            SinkError: it cannot be written.
        """
        if self._clock() >= self._next_s and not (path := self._name()).exists():
            self._sink.close()
            self._sink = self._make(path)
            self._next_s = self._clock() + self._period_s
        self._sink.write(result)

    def close(self) -> None:
        """Finish the last file."""
        self._sink.close()
