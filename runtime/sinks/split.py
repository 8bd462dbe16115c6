"""SplitSink: a new file every so many minutes, for streams that run for weeks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path

from runtime.errors import SinkError
from runtime.frames import Segmentation
from runtime.sinks import Sink


class SplitSink:
    """Writes to one sink after the other.

    A file is begun with the first result after its time has come, if its name is another one by
    then. Nothing is overwritten: a name that is there, as after a restart within the hour or in the
    hour that a clock is set back, gets a number.

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
        self._named = name()
        self._sink = make(free_path(self._named))
        self._next_s = clock() + period_s

    def write(self, result: Segmentation) -> None:
        """Write one result, into a new file where its time has come.

        Raises:
            SinkError: it cannot be written.
        """
        if self._clock() >= self._next_s and (named := self._name()) != self._named:
            self._sink.close()
            self._named = named
            self._sink = self._make(free_path(named))
            self._next_s = self._clock() + self._period_s
        self._sink.write(result)

    def close(self) -> None:
        """Finish the last file."""
        self._sink.close()


def free_path(path: Path) -> Path:
    """The path, or with the first number from 2 that nothing has.

    Raises:
        SinkError: it is a disk's root.
    """
    numbers = itertools.count(2)
    path = path if path.name not in ("", "..") else path.resolve()
    if not path.name:
        raise SinkError(f"{path} holds files already; name another folder")
    found = path
    while found.exists():
        found = path.with_name(f"{path.stem}-{next(numbers)}{path.suffix}")
    return found
