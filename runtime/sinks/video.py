"""The overlay as a video file."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from runtime.errors import SinkError
from runtime.frames import Segmentation
from runtime.images import ImageError, require_encodable, resize_image
from runtime.overlay import Overlay
from runtime.sinks.encoders import OPENCV_CODECS, Encoder, open_encoder

DEFAULT_FPS = 15.0


class FrameTimes:
    """When each picture of a video is shown.

    Args:
        rate: of the source; None for sources without one.
        live: its frames have the times of their capture; others those of their file.

    Attributes:
        fps: a rate in any case.
    """

    def __init__(self, rate: float | None, live: bool) -> None:
        self.fps, self._live = rate or DEFAULT_FPS, live
        self._count = 0
        self._first_s: float | None = None

    def since_first(self, result: Segmentation) -> float:
        """Seconds from the first result to this one; ask once for each."""
        time_s = self._time_s(result)
        self._first_s = time_s if self._first_s is None else self._first_s
        self._count += 1
        return time_s - self._first_s

    def _time_s(self, result: Segmentation) -> float:
        frame = result.frame
        if result.repeated:
            return time.monotonic()
        if self._live:
            return frame.captured_ns * 1e-9
        return self._count / self.fps if frame.time_s is None else frame.time_s


class VideoSink:
    """Writes overlays with the times of their frames, so that a video lasts as long as its source.

    Args:
        path: .mp4, .mkv or .avi.
        overlay: draws the pictures.
        fps: of the source; None for sources without a rate.
        live: its frames have the times of their capture; others those of their file.

    Raises:
        SinkError: the name cannot be used.
    """

    def __init__(self, path: Path, overlay: Overlay, fps: float | None, live: bool) -> None:
        if path.suffix.lower() not in OPENCV_CODECS:
            raise SinkError(f"cannot save '{path}': use one of {', '.join(OPENCV_CODECS)}")
        if not path.parent.is_dir():
            raise SinkError(f"cannot save {path}: the folder {path.parent} does not exist")
        try:
            require_encodable(path)
        except ImageError as error:
            raise SinkError(str(error)) from None
        self._path, self._overlay, self._times = path, overlay, FrameTimes(fps, live)
        self._encoder: Encoder | None = None
        self._size_hw = (0, 0)

    def write(self, result: Segmentation) -> None:
        """Write one picture.

        Raises:
            SinkError: it cannot be written.
        """
        picture = self._overlay.draw_result(result)
        time_s = self._times.since_first(result)
        if self._encoder is None:
            self._size_hw = (picture.shape[0], picture.shape[1])
            self._encoder = open_encoder(self._path, self._size_hw, self._times.fps)
        self._encoder.write(self._fitted(picture), time_s)

    def _fitted(self, picture: np.ndarray) -> np.ndarray:
        """A video has one size, whatever its source does."""
        return (
            picture if picture.shape[:2] == self._size_hw else resize_image(picture, self._size_hw)
        )

    def close(self) -> None:
        """Finish the file, so that it can be played.

        Raises:
            SinkError: it cannot.
        """
        if self._encoder is not None:
            encoder, self._encoder = self._encoder, None
            encoder.close()
