"""A network stream, or a video file behind a URL."""

from __future__ import annotations

import re
import time

from runtime.credentials import with_escaped_credentials, without_credentials
from runtime.errors import SourceError
from runtime.sources.av_source import AvSource, has_av
from runtime.sources.base import Source
from runtime.sources.capture import (
    CaptureSource,
    ffmpeg_options,
    load_opencv,
    say_that_opencv_decodes,
)
from runtime.sources.containers import NETWORK
from runtime.sources.video_file import VIDEO_SUFFIXES

URL = re.compile(r"(?:rtsps?|https?)://", re.IGNORECASE)


def open_url(url: str) -> Source:
    """A stream by its URL; by PyAV where it is installed.

    Raises:
        SourceError: it does not open.
    """
    live = not is_file(url)
    if has_av():
        address = with_escaped_credentials(url)
        return AvSource(without_credentials(url), address, NETWORK, live)
    return open_url_with_opencv(url)


def open_url_with_opencv(url: str) -> Source:
    """The same by OpenCV.

    Raises:
        SourceError: it does not open; OpenCV does not say why.
    """
    cv2 = load_opencv()
    open_s, read_s = NETWORK.open_s or 0, NETWORK.read_s or 0
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(1000 * open_s)]
    limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(1000 * read_s)]
    start_s = time.monotonic()
    with ffmpeg_options(NETWORK.for_opencv()):
        capture = cv2.VideoCapture(with_escaped_credentials(url), cv2.CAP_FFMPEG, limits)
    name = without_credentials(url)
    say_that_opencv_decodes(name)
    if not capture.isOpened():
        late = time.monotonic() - start_s >= open_s
        found = f"no answer within {open_s:g} s" if late else "refused, or no video"
        raise SourceError(
            f"{name} does not open: {found}; check address, user and password, and that it plays "
            "elsewhere"
        )
    return CaptureSource(name, capture, live=not is_file(url))


def is_file(url: str) -> bool:
    """Whether a URL is of a video file, which ends."""
    path = re.split(r"[?#]", url, maxsplit=1)[0].lower()
    return path.startswith("http") and path.endswith(VIDEO_SUFFIXES)
