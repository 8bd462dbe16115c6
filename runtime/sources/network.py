"""A network stream, or a video file behind a URL."""

from __future__ import annotations

import re

from runtime.errors import SourceError
from runtime.sources.base import Source
from runtime.sources.capture import NETWORK_OPTIONS, CaptureSource, ffmpeg_options, load_opencv
from runtime.sources.credentials import without_credentials
from runtime.sources.video_file import VIDEO_SUFFIXES

URL = re.compile(r"(?:rtsps?|https?)://", re.IGNORECASE)
OPEN_TIMEOUT_MS = 5000
READ_TIMEOUT_MS = 5000


def open_url(url: str) -> Source:
    """A stream by its URL.

    Raises:
        SourceError: it does not open.
    """
    cv2 = load_opencv()
    limits = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        OPEN_TIMEOUT_MS,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        READ_TIMEOUT_MS,
    ]
    with ffmpeg_options(NETWORK_OPTIONS):
        capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, limits)
    name = without_credentials(url)
    if not capture.isOpened():
        raise SourceError(
            f"{name} does not open within {OPEN_TIMEOUT_MS / 1000:.0f} s; "
            "check address, user and password, and that it plays elsewhere"
        )
    return CaptureSource(name, capture, live=not is_file(url))


def is_file(url: str) -> bool:
    """Whether a URL is of a video file, which ends."""
    path = re.split(r"[?#]", url, maxsplit=1)[0].lower()
    return path.startswith("http") and path.endswith(VIDEO_SUFFIXES)
