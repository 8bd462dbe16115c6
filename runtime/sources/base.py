"""Source: what every origin of frames is to the pipeline."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

import numpy as np

from runtime.closing import Closing
from runtime.frames import Frame
from runtime.sources.watchdog import State


class Source(Closing, ABC):
    """Gives frames one after the other; close it, or use it in a ``with``.

    Attributes:
        name: for people; never holds a password.
        live: frames that are not taken in time are lost.
        fps: the source's own rate, or None when it has none.
        reconnects: how often it was opened again.
    """

    name: str
    live: bool = False
    fps: float | None = None
    reconnects: int = 0

    def __init__(self) -> None:
        self._count = 0
        self._ended = False

    @property
    def state(self) -> State:
        """What the source is doing now."""
        return State.ENDED if self._ended else State.LIVE

    def interrupt(self) -> None:
        """Let a ``read`` that waits, in another thread, return."""

    @abstractmethod
    def _next_image(self) -> np.ndarray | None:
        """The next (H, W, 3) uint8 RGB image, or None at the end."""

    def read(self) -> Frame | None:
        """The next frame, or None at the end.

        Raises:
            SourceError: a live source is lost, or an image is damaged.
        """
        image = self._next_image()
        if image is None:
            self._ended = True
            return None
        frame = Frame(self._count, image, time.monotonic_ns())
        self._count += 1
        return frame
