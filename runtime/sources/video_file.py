"""A video file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from runtime.errors import SourceError
from runtime.images import ImageError, require_encodable
from runtime.sources.av_source import AvSource, has_av
from runtime.sources.base import Source
from runtime.sources.capture import (
    CaptureSource,
    ffmpeg_options,
    load_opencv,
    say_that_opencv_decodes,
)
from runtime.sources.containers import FILES

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v")


def open_video_file(path: Path) -> Source:
    """A video file, every frame of it; by PyAV where it is installed.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        require_encodable(path)
    except ImageError as error:
        raise SourceError(str(error)) from None
    if has_av():
        return AvSource(str(path), str(path.absolute()), FILES, live=False)
    return open_with_opencv(path)


def open_with_opencv(path: Path) -> Source:
    """The same frames by OpenCV.

    Raises:
        SourceError: OpenCV cannot read it.
    """
    cv2 = load_opencv()
    say_that_opencv_decodes(str(path))
    with ffmpeg_options(FILES.for_opencv()):
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise SourceError(f"{path} is not a video that can be read; re-encode it as H.264 mp4")
    return CaptureSource(str(path), capture, live=False)


def video_frames(path: Path) -> Iterator[np.ndarray]:
    """All frames of a video file, each (H, W, 3) uint8 RGB.

    Raises:
        SourceError: the file is missing, or holds no frame that can be decoded.
    """
    if not path.is_file():
        raise SourceError(f"{path} is not a file")
    with open_video_file(path) as source:
        while (frame := source.read()) is not None:
            yield frame.image
