"""A video file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from runtime.errors import SourceError
from runtime.images import ImageError, require_encodable
from runtime.sources.base import Source
from runtime.sources.capture import FILE_OPTIONS, CaptureSource, ffmpeg_options, load_opencv

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v")


def open_video_file(path: Path) -> Source:
    """A video file, every frame of it.

    Raises:
        SourceError: OpenCV cannot read it.
    """
    cv2 = load_opencv()
    try:
        require_encodable(path)
    except ImageError as error:
        raise SourceError(str(error)) from None
    with ffmpeg_options(FILE_OPTIONS):
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise SourceError(f"{path} is not a video that OpenCV can read; re-encode it as H.264 mp4")
    return CaptureSource(str(path), capture, live=False)


def video_frames(path: Path) -> Iterator[np.ndarray]:
    """All frames of a video file, each (H, W, 3) uint8 RGB.

    Raises:
        SourceError: the file is missing, or holds no frame that can be decoded.
    """
    if not path.is_file():
        raise SourceError(f"{path} is not a file")
    with open_video_file(path) as source:
        frame = source.read()
        if frame is None:
            raise SourceError(f"{path} holds no frame that can be decoded")
        while frame is not None:
            yield frame.image
            frame = source.read()
