"""One JSON line a frame: index, times, share of each class."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from runtime.bundle.labels import LabelSpace
from runtime.errors import SinkError
from runtime.frames import Segmentation
from runtime.sinks import ViewerLeft

SCHEMA = 2  # docs/runtime.md lists the keys


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

    Raises:
        SinkError: the file cannot be written.
    """

    def __init__(self, path: str, lines: ResultLines) -> None:
        self._lines, self._path = lines, path
        try:
            self._file = sys.stdout if path == "-" else Path(path).open("w", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise SinkError(f"cannot write {path}: {error.strerror}") from None

    def write(self, result: Segmentation) -> None:
        """Write one line.

        Raises:
            SinkError: it cannot be written.
            ViewerLeft: standard output was closed, as ``| head`` does.
        """
        try:
            self._file.write(json.dumps(self._lines.record(result)) + "\n")
            self._file.flush()  # who reads along sees each frame as it comes
        except OSError as error:
            if isinstance(error, BrokenPipeError) and self._file is sys.stdout:
                raise ViewerLeft from None
            raise SinkError(f"cannot write {self._path}: {error.strerror}") from None

    def close(self) -> None:
        """Close a file; standard output stays open."""
        if self._file is not sys.stdout:
            with contextlib.suppress(OSError):  # said already, by the write that failed
                self._file.close()
