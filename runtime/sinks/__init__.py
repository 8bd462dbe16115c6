"""Sinks: where results go. Each takes every Segmentation in order and is closed at the end."""

from __future__ import annotations

from typing import Protocol

from runtime.frames import Segmentation


class ViewerLeft(Exception):  # noqa: N818 - not an error
    """The window or the pipe was closed: the stream ends, as its user wants."""


class Sink(Protocol):
    """Takes results one after the other."""

    def write(self, result: Segmentation) -> None:
        """Take one result.

        Raises:
            SinkError: it cannot be written or shown.
            ViewerLeft: nobody looks at it any more.
        """
        ...

    def close(self) -> None:
        """Finish what was begun, so that a file can be read."""
        ...
