"""Source: what every origin of frames is to the pipeline."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod

import numpy as np

from runtime.closing import Closing
from runtime.errors import SourceError
from runtime.frames import Frame, LazyImage
from runtime.sources.watchdog import State

logger = logging.getLogger(__name__)


class Source(Closing, ABC):
    """Gives frames one after the other; close it, or use it in a ``with``.

    Attributes:
        name: for people; never holds a password.
        live: frames that are not taken in time are lost.
        fps: the source's own rate, or None when it has none.
        codec: of a video, where it is known.
        promised: number of frames that a file's container names; None where it names none.
        damaged: frames that could not be decoded, and were left out.
        reconnects: how often it was opened again.
        hangs: it is opened no more, since earlier connections hang in their library.
    """

    name: str
    live: bool = False
    fps: float | None = None
    codec: str = ""
    promised: int | None = None
    reconnects: int = 0
    hangs: bool = False

    def __init__(self) -> None:
        self._count = self.damaged = 0
        self._ended = self._closed = False
        self._reading = threading.Lock()
        # Of the next image, where a source knows them.
        self._captured_ns: int | None = None
        self._time_s: float | None = None
        self._index: int | None = None

    @property
    def state(self) -> State:
        """What the source is doing now."""
        return State.ENDED if self._ended else State.LIVE

    def rename(self, name: str) -> None:
        """Call it by the user's own name from now on."""
        self.name = name

    def interrupt(self) -> None:
        """Let a ``read`` that waits, in another thread, return."""

    @abstractmethod
    def _frame(self) -> Frame | None:
        """The next frame, or None at the end."""

    def read(self) -> Frame | None:
        """The next frame, or None at the end.

        Raises:
            SourceError: a live source is lost, or there is no frame at all.
        """
        with self._reading:
            try:
                return None if self._closed else self._frame()
            finally:
                if self._closed:
                    self._release()

    def close(self) -> None:
        """Let go of device, file or connection; after the read that is under way, if one is.

        Libraries crash when what they read from is closed meanwhile.
        """
        self._closed = True
        if self._reading.acquire(blocking=False):
            try:
                self._release()
            finally:
                self._reading.release()

    def _release(self) -> None:
        """Free what is held; may be called twice."""


class ImageSource(Source):
    """A source that gives images; they are numbered here, and what was missing is said."""

    @abstractmethod
    def _next_image(self) -> np.ndarray | LazyImage | None:
        """The next (H, W, 3) uint8 RGB image, or None at the end."""

    def _frame(self) -> Frame | None:
        image = self._next_image()
        if image is None:
            if not self._ended:
                self._ended = True
                self._look_back()
            return None
        captured_ns = time.monotonic_ns() if self._captured_ns is None else self._captured_ns
        index = self._count if self._index is None else self._index
        frame = Frame(index, image, captured_ns, self._time_s)
        self._count += 1
        return frame

    def _look_back(self) -> None:
        """Say what was missing.

        Raises:
            SourceError: everything was.
        """
        if not self._count:
            codec = f" (its codec is {self.codec})" if self.codec else ""
            raise SourceError(
                f"{self.name} holds no frame that can be decoded{codec}; re-encode it as H.264, or "
                "pip install 'sfda-edge[video]', whose decoders know more codecs"
            )
        if self.damaged:
            logger.warning(
                "%s: %d damaged frames were left out, %d are whole",
                self.name,
                self.damaged,
                self._count,
            )
        elif self.promised is not None and self._count < self.promised:
            logger.warning(
                "%s ends after %d frames, its container names %d: the file is not whole",
                self.name,
                self._count,
                self.promised,
            )
