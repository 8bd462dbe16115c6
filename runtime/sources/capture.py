"""What OpenCV captures: cameras, and videos and network streams where PyAV is not installed."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from runtime.errors import SourceError
from runtime.frames import LazyImage, grid
from runtime.sources.base import ImageSource

logger = logging.getLogger(__name__)
# OpenCV hands this environment variable's ``key;value|key;value`` to FFmpeg.
_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_QUIET = "-8"  # AV_LOG_QUIET
# Behind damaged frames a stream goes on: OpenCV says no more than that there is no frame.
_MOST_DAMAGED_IN_A_ROW = 100


class CaptureSource(ImageSource):
    """An opened capture.

    Args:
        name: for people.
        capture: ``cv2.VideoCapture``.
        live: whether frames that are not taken in time are lost.
    """

    def __init__(self, name: str, capture: Any, live: bool) -> None:
        import cv2

        super().__init__()
        self.name, self.live, self._capture, self._cv2 = name, live, capture, cv2
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # off in some builds
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.fps = float(rate) if 0 < rate < 1000 else None
        promised = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.promised = promised if not live and promised > 0 else None

    def _next_image(self) -> np.ndarray | LazyImage | None:
        for missed in range(_MOST_DAMAGED_IN_A_ROW):
            there, image = self._capture.read()
            if there:
                self.damaged += missed
                self._time_s = self._capture.get(self._cv2.CAP_PROP_POS_MSEC) / 1000
                in_rgb = partial(self._cv2.cvtColor, image, self._cv2.COLOR_BGR2RGB)
                if not self.live:
                    return in_rgb()
                return LazyImage(in_rgb, partial(grid, image), nbytes=image.nbytes)
            if self.live or self._count + self.damaged + missed >= (self.promised or 0):
                break
        if self.live:
            raise SourceError(
                f"{self.name} stopped after {self._count} frames; check its cable, power or network"
            )
        return None

    def _release(self) -> None:
        self._capture.release()


def load_opencv() -> Any:
    """OpenCV, without log lines of its own or of its FFmpeg.

    They repeat our errors, and may show parts of a URL's password.

    Raises:
        SourceError: it does not start.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", _QUIET)  # read at each opening
    try:
        import cv2
    except ImportError as error:
        raise SourceError(
            f"OpenCV does not start ({error}): pip install opencv-python, or on a machine without "
            "a display pip install opencv-python-headless"
        ) from None
    if hasattr(cv2, "utils") and hasattr(cv2.utils, "logging"):
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


def say_that_opencv_decodes(name: str) -> None:
    """PyAV would say more about errors, and know more codecs."""
    logger.info("%s: decoded by OpenCV; PyAV is not installed (extra video)", name)


class _SharedOptions:
    """The environment variable, while at least one opening needs it.

    Who comes first is served first, so that those with other options get their turn.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users = 0
        self._queue: deque[object] = deque()
        self._before: str | None = None

    def enter(self, options: str) -> None:
        """Set it, when no opening has it otherwise."""
        me = object()
        with self._changed:
            self._queue.append(me)
            self._changed.wait_for(
                lambda: (
                    self._queue[0] is me
                    and (not self._users or os.environ.get(_OPTIONS) == options)
                )
            )
            self._queue.popleft()
            self._changed.notify_all()
            if not self._users:
                self._before = os.environ.get(_OPTIONS)
                os.environ[_OPTIONS] = options
            self._users += 1

    def leave(self) -> None:
        """Set it back after the last one."""
        with self._changed:
            self._users -= 1
            if self._users:
                return
            if self._before is None:
                del os.environ[_OPTIONS]
            else:
                os.environ[_OPTIONS] = self._before
            self._changed.notify_all()


_environment = _SharedOptions()


@contextlib.contextmanager
def ffmpeg_options(options: str) -> Iterator[None]:
    """Let captures that are opened meanwhile use these options.

    Openings with the same options go on side by side, so that a camera which does not answer keeps
    no other waiting; those with others take turns.
    """
    _environment.enter(options)
    try:
        yield
    finally:
        _environment.leave()
