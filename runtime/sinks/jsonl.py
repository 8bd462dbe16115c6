"""One JSON line a frame: index, times, share of each class."""

from __future__ import annotations

import contextlib
import json
import os
import select
import stat
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from runtime.bundle.labels import LabelSpace
from runtime.errors import SinkError
from runtime.frames import Segmentation
from runtime.sinks import ViewerLeft

SCHEMA = 2  # docs/runtime.md lists the keys


_LOOK_S, _STOP_S = 0.1, 0.5


def _pipe_number(file: TextIO) -> int | None:
    """The descriptor of a pipe or socket, where a write may wait for a reader; None of others."""
    try:
        number = file.fileno()
        mode = os.fstat(number).st_mode
        return number if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else None
    except (OSError, ValueError):  # not a file of the system
        return None


class ResultLines:
    """Makes the record of a result, for files and recordings.

    Args:
        source: name of the source.
        label_space: names of the classes.
        backend: what runs the model, as ``Backend.record`` says; it stands in every record.
    """

    def __init__(self, source: str, label_space: LabelSpace, backend: dict[str, Any]) -> None:
        self._source, self._names, self.backend = source, label_space.names, backend

    def record(self, result: Segmentation) -> dict[str, Any]:
        """Plain values for JSON."""
        of_all = result.class_shares(len(self._names))
        shares = {
            name: round(float(share), 4)
            for name, share in zip(self._names, of_all, strict=True)
            if share
        }
        return {
            "schema": SCHEMA,
            "source": self._source,
            "frame": result.frame.index,
            "captured_ns": result.frame.captured_ns,
            "age_ms": round(result.frame.age_ms, 3),
            "state": result.state,
            "repeated": result.repeated,
            "stage_ms": {stage: round(value, 3) for stage, value in result.timing.items()},
            "class_share": shares,
            "backend": self.backend,
        }


class JsonLinesSink:
    """Writes to a file, or to standard output for ``-``.

    Args:
        path: of the file.
        lines: makes the records.
        stop: whether the stream is to end: whoever does not read standard output then is left.

    Raises:
        SinkError: the file cannot be written.
    """

    def __init__(self, path: str, lines: ResultLines, stop: threading.Event) -> None:
        self._lines, self._path, self._stop = lines, path, stop
        if path == "-" and sys.stdout is None:
            raise SinkError("--jsonl -: standard output is closed")
        try:
            self._file = sys.stdout if path == "-" else Path(path).open("w", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise SinkError(f"cannot write {path}: {error.strerror}") from None

    def write(self, result: Segmentation) -> None:
        """Write one line.

        Raises:
            SinkError: it cannot be written.
            ViewerLeft: standard output was closed, as ``| head`` does, or nobody reads it when
                the stream is to end.
        """
        line = json.dumps(self._lines.record(result)) + "\n"
        try:
            if self._file is sys.stdout and (number := _pipe_number(self._file)) is not None:
                self._write_to_pipe(number, line.encode())
            else:
                self._file.write(line)
            self._file.flush()  # who reads along sees each frame as it comes
        except OSError as error:
            if isinstance(error, BrokenPipeError) and self._file is sys.stdout:
                raise ViewerLeft from None
            raise SinkError(f"cannot write {self._path}: {error.strerror}") from None

    def _write_to_pipe(self, number: int, data: bytes) -> None:
        """Write no more at once than a pipe takes without waiting: a signal cannot end a wait."""
        self._file.flush()
        stopped_s = None
        while data:
            if select.select([], [number], [], _LOOK_S)[1]:
                data = data[os.write(number, data[: select.PIPE_BUF]) :]
            elif self._stop.is_set():
                stopped_s = stopped_s or time.monotonic()
                if time.monotonic() - stopped_s > _STOP_S:
                    raise ViewerLeft

    def close(self) -> None:
        """Close a file; standard output stays open."""
        if self._file is not sys.stdout:
            with contextlib.suppress(OSError):  # said already, by the write that failed
                self._file.close()
