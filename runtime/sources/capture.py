"""What OpenCV captures: cameras, network streams, video files.

FFmpeg decides by content what a file or stream is, and a playlist may name other files and
addresses. So containers and protocols are limited to lists, for files and for the network apart.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from runtime.errors import SourceError
from runtime.sources.base import Source

# OpenCV hands this environment variable's ``key;value|key;value`` to FFmpeg.
_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,m4v,mjpeg,mpjpeg,h264,hevc"
FILE_OPTIONS = f"protocol_whitelist;file|format_whitelist;{_CONTAINERS}"
NETWORK_OPTIONS = (
    "rtsp_transport;tcp|protocol_whitelist;http,https,httpproxy,tcp,tls,udp,rtp,rtsp|"
    f"format_whitelist;{_CONTAINERS},rtsp,rtp,sdp"
)
_environment = threading.Lock()


class CaptureSource(Source):
    """An opened capture.

    Args:
        name: for people.
        capture: ``cv2.VideoCapture``.
        live: whether frames that are not taken in time are lost.
    """

    def __init__(self, name: str, capture: Any, live: bool) -> None:
        import cv2

        super().__init__()
        self.name, self.live, self._capture = name, live, capture
        self._to_rgb = lambda image: cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.fps = float(rate) if 0 < rate < 1000 else None

    def _next_image(self) -> np.ndarray | None:
        there, image = self._capture.read()
        if there:
            return self._to_rgb(image)
        if self.live:
            raise SourceError(
                f"{self.name} stopped after {self._count} frames; check its cable, power or network"
            )
        return None

    def close(self) -> None:
        self._capture.release()


def load_opencv() -> Any:
    """OpenCV, without its own log lines: they repeat our errors and may show a URL's password.

    Raises:
        SourceError: it does not start.
    """
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


@contextlib.contextmanager
def ffmpeg_options(options: str) -> Iterator[None]:
    """Let captures that are opened meanwhile use these options."""
    with _environment:
        before = os.environ.get(_OPTIONS)
        os.environ[_OPTIONS] = options
        try:
            yield
        finally:
            if before is None:
                del os.environ[_OPTIONS]
            else:
                os.environ[_OPTIONS] = before
