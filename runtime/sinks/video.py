"""The overlay as a video file."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import SinkError
from runtime.frames import Segmentation
from runtime.overlay import Overlay

# What the codecs in OpenCV's own wheels can write; their licence leaves H.264 out.
CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v"}
DEFAULT_FPS = 15.0
_MIN_FREE_BYTES = 32 << 20
_CHECK_EVERY = 50


class VideoSink:
    """Writes overlays at a steady rate.

    A file's frames are written one for one. A live source is paced by its clock: a picture stays
    until the next one was captured, so that the video lasts as long as what it shows.

    Args:
        path: .mp4, .mkv or .avi.
        overlay: draws the pictures.
        fps: of the video; None for sources without a rate.
        live: pace by capture time.
    """

    def __init__(self, path: Path, overlay: Overlay, fps: float | None, live: bool) -> None:
        if path.suffix.lower() not in CODECS:
            raise SinkError(f"cannot save '{path}': use one of {', '.join(CODECS)}")
        if not path.parent.is_dir():
            raise SinkError(f"cannot save {path}: the folder {path.parent} does not exist")
        self._path, self._overlay, self._live = path, overlay, live
        self._fps = fps or DEFAULT_FPS
        self._writer: Any = None
        self._size_hw = (0, 0)
        self._calls = self._written = 0
        self._previous: np.ndarray = np.zeros(0)
        self._first_ns = 0

    def write(self, result: Segmentation) -> None:
        """Write one picture; of a live source, first the one before until its time is over."""
        import cv2

        picture = self._overlay.draw_result(result)
        if self._writer is None:
            self._open(picture.shape[:2], result.frame.captured_ns)
        elif self._calls % _CHECK_EVERY == 0:
            self._require_space()
        if picture.shape[:2] != self._size_hw:
            height, width = self._size_hw
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        encoded = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        self._calls += 1
        if not self._live:
            self._write(encoded)
            return
        now_ns = time.monotonic_ns() if result.repeated else result.frame.captured_ns
        due = int((now_ns - self._first_ns) * 1e-9 * self._fps)
        while self._written < due:
            self._write(self._previous)
        if self._written == due:
            self._write(encoded)
        self._previous = encoded

    def _write(self, encoded: np.ndarray) -> None:
        self._writer.write(encoded)
        self._written += 1

    def _open(self, size_hw: tuple[int, int], captured_ns: int) -> None:
        import cv2

        self._require_space()
        self._size_hw, self._first_ns = size_hw, captured_ns
        codec = cv2.VideoWriter.fourcc(*CODECS[self._path.suffix.lower()])
        height, width = size_hw
        self._writer = cv2.VideoWriter(str(self._path), codec, self._fps, (width, height))
        if not self._writer.isOpened():
            raise SinkError(
                f"cannot write {self._path}: no permission, or no codec for {width}x{height}"
            )

    def _require_space(self) -> None:
        """OpenCV's writer does not say when the disk is full, so we look ourselves."""
        free = shutil.disk_usage(self._path.parent).free
        if free < _MIN_FREE_BYTES:
            raise SinkError(
                f"the disk of {self._path} has {free >> 20} MB left; the video ends here and is "
                "playable; free some space or save elsewhere"
            )

    def close(self) -> None:
        """Finish the file, so that it can be played."""
        if self._writer is not None:
            self._writer.release()
