"""TraceFile: every stage of every frame on a time line, for Perfetto and chrome://tracing."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.closing import Closing
from runtime.errors import SinkError

_FLUSH_EVERY_S = 1.0
# Waits of several frames overlap, so they are asynchronous events and have no thread.
_WAITS = frozenset({"queue"})


class TraceFile(Closing):
    """Writes Chrome's trace event format: a JSON array with one event a line.

    Both readers accept an array without its end, so a killed stream leaves a trace as well. A
    frame takes about 1 KB: a trace is for minutes, not for weeks.

    Args:
        path: of the file.

    Raises:
        SinkError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._tracks: dict[tuple[str, str], int] = {}
        self._flushed_s = time.monotonic()
        self._begun, self._separator = False, "[\n"
        try:
            self._file = path.open(
                "a", encoding="utf-8"
            )  # an earlier trace stays until the first span
        except OSError as error:
            raise SinkError(f"cannot write {path}: {error.strerror}") from None

    def span(self, source: str, stage: str, *, frame: int, start_ns: int, end_ns: int) -> None:
        """Add one stage of one frame; any thread may call it.

        Args:
            source: name of the source.
            stage: read, queue, resize, infer, or a sink.
            frame: its index.
            start_ns: of the monotonic clock.
            end_ns: of the same clock.

        Raises:
            SinkError: the disk is full.
        """
        begin_us, length_us = start_ns / 1000, max(0, end_ns - start_ns) / 1000
        lane = "waiting" if stage in _WAITS else threading.current_thread().name
        with self._lock:
            if self._file.closed:
                return
            self._begin()
            at = {"name": stage, "cat": source, "pid": os.getpid()}
            at |= {"tid": self._track(source, lane), "args": {"frame": frame}}
            if stage in _WAITS:
                self._write({**at, "ph": "b", "id": frame, "ts": begin_us})
                self._write({**at, "ph": "e", "id": frame, "ts": begin_us + length_us})
            else:
                self._write({**at, "ph": "X", "ts": begin_us, "dur": length_us})
            if time.monotonic() - self._flushed_s > _FLUSH_EVERY_S:
                self._flushed_s = time.monotonic()
                self._guarded(self._file.flush)

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._guarded(lambda: self._file.truncate(0))

    def _track(self, source: str, lane: str) -> int:
        """The number of a line in the picture; its name is written when it is new."""
        track = self._tracks.get((source, lane))
        if track is None:
            track = self._tracks[source, lane] = len(self._tracks) + 1
            name = {"name": f"{source}: {lane}"}
            event = {"name": "thread_name", "ph": "M", "pid": os.getpid(), "tid": track}
            self._write({**event, "args": name})
        return track

    def _write(self, event: dict[str, Any]) -> None:
        before, self._separator = self._separator, ",\n"
        self._guarded(lambda: self._file.write(before + json.dumps(event)))

    def _guarded(self, write: Callable[[], object]) -> None:
        try:
            write()
        except OSError as error:
            self._discard()
            raise SinkError(f"cannot write {self._path}: {error.strerror}") from None

    def _discard(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()

    def close(self) -> None:
        """End the array.

        Raises:
            SinkError: the disk is full.
        """
        with self._lock:
            if self._file.closed:
                return
            try:
                if self._begun:
                    self._file.write("]\n")
                self._file.close()
            except OSError as error:
                self._discard()
                raise SinkError(f"cannot finish {self._path}: {error.strerror}") from None
