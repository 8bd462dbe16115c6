"""Video encoders: H.264 that survives a kill by PyAV, or what OpenCV's wheels can write."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from runtime.errors import SinkError
from runtime.sources.av_source import has_av, load_av
from runtime.sources.capture import load_opencv

logger = logging.getLogger(__name__)
# What the codecs in OpenCV's own wheels can write; their licence leaves H.264 out.
OPENCV_CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v"}
# Written packet by packet, so that a kill loses less than a second: of 119 frames 118 could be read
# after SIGKILL as fragmented MP4, none as plain MP4. A power cut loses what the system has not
# written to the disk yet.
_CONTAINERS = {
    ".mp4": {
        # The trailer is an index of all fragments, kept in memory: 86 MB a day at 25 a second.
        "movflags": "frag_every_frame+empty_moov+default_base_moof+skip_trailer",
        "flush_packets": "1",
    },
    ".mkv": {"cluster_time_limit": "200", "flush_packets": "1"},
}
_CLOCK_HZ = 90_000
_MIN_FREE_BYTES = 32 << 20


class Encoder(Protocol):
    """Writes pictures of one size."""

    def write(self, picture: np.ndarray, time_s: float) -> None:
        """Add a picture, (H, W, 3) uint8 RGB or as the codec takes it, shown from this time on.

        Raises:
            SinkError: it cannot be written.
        """
        ...

    def close(self) -> None:
        """Finish the file.

        Raises:
            SinkError: what was written cannot be read.
        """
        ...


def open_encoder(path: Path, size_hw: tuple[int, int], fps: float) -> Encoder:
    """The encoder for a file: H.264 where PyAV is installed, for all but .avi.

    Raises:
        SinkError: the file cannot be written.
    """
    if path.suffix.lower() in _CONTAINERS and has_av():
        return AvEncoder(path, size_hw, fps)
    logger.warning(
        "%s is written as %s, which a kill leaves unplayable%s",
        path,
        OPENCV_CODECS[path.suffix.lower()],
        "" if has_av() else "; with PyAV (extra video) .mp4 and .mkv are H.264 and survive it",
    )
    return OpenCvEncoder(path, size_hw, fps)


@dataclass(frozen=True)
class Codec:
    """How pictures are compressed.

    Attributes:
        name: FFmpeg's.
        stored: layout of the pixels in the file.
        from_rgb: OpenCV's name of the conversion; None for pictures that have it already.
        options: FFmpeg's.
        multiple: height and width are cut to multiples of it.
    """

    name: str
    stored: str
    from_rgb: str | None
    options: dict[str, str]
    multiple: int


# OpenCV makes 4:2:0 of RGB: a picture of 720p takes 3.1 ms, with FFmpeg's own conversion 4.4.
H264 = Codec(
    "libx264",
    stored="yuv420p",
    from_rgb="COLOR_RGB2YUV_I420",
    options={"preset": "ultrafast", "tune": "zerolatency", "crf": "23"},
    multiple=2,  # as 4:2:0 needs
)
FFV1 = Codec("ffv1", stored="gray", from_rgb=None, options={"level": "3"}, multiple=1)


class AvEncoder:
    """A video in fragmented MP4 or in Matroska, with the times of the frames."""

    def __init__(
        self, path: Path, size_hw: tuple[int, int], fps: float, codec: Codec = H264
    ) -> None:
        self._av, self._path, self._last, self._codec = load_av(), path, -1, codec
        self._cv2 = load_opencv()
        self._cut_hw = tuple(side // codec.multiple * codec.multiple for side in size_hw)
        options = _CONTAINERS[path.suffix.lower()]
        try:
            # Of "cam-12:30.mp4" FFmpeg makes a protocol.
            where = str(path.absolute())
            self._container = self._av.open(where, "w", container_options=options)
            stream = self._container.add_stream(
                codec.name, rate=round(fps) or 1, options=codec.options
            )
            stream.height, stream.width = self._cut_hw
            stream.pix_fmt = codec.stored
            stream.codec_context.time_base = stream.time_base = Fraction(1, _CLOCK_HZ)
            stream.codec_context.gop_size = max(1, round(fps))
            self._stream = stream
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise SinkError(f"cannot write {path}: {_reason(error)}") from None

    def write(self, picture: np.ndarray, time_s: float) -> None:
        """Encode one picture, and have it on disk."""
        height, width = self._cut_hw
        pixels = np.ascontiguousarray(picture[:height, :width])
        if self._codec.from_rgb is not None:
            pixels = self._cv2.cvtColor(pixels, getattr(self._cv2, self._codec.from_rgb))
        frame = self._av.VideoFrame.from_ndarray(pixels, self._codec.stored)
        plays = "; what was written before plays" if self._last >= 0 else ""
        self._last = max(self._last + 1, round(time_s * _CLOCK_HZ))
        frame.pts, frame.time_base = self._last, Fraction(1, _CLOCK_HZ)
        try:
            self._container.mux(self._stream.encode(frame))
        except (self._av.error.FFmpegError, OSError) as error:
            raise SinkError(f"cannot write {self._path}: {_reason(error)}{plays}") from None

    def close(self) -> None:
        """Write what the encoder holds back, and the end of the file."""
        try:
            self._container.mux(self._stream.encode())
            self._container.close()
        except (self._av.error.FFmpegError, OSError) as error:
            raise SinkError(
                f"cannot finish {self._path}: {_reason(error)}; what was written before plays"
            ) from None


class OpenCvEncoder:
    """MPEG-4 part 2 or Motion JPEG at a steady rate: a picture stays until the next one's time."""

    def __init__(self, path: Path, size_hw: tuple[int, int], fps: float) -> None:
        import cv2

        self._cv2, self._path, self._fps = cv2, path, fps
        self._written = 0
        self._previous: np.ndarray = np.zeros(0, np.uint8)
        self._require_space()
        codec = cv2.VideoWriter.fourcc(*OPENCV_CODECS[path.suffix.lower()])
        height, width = size_hw
        self._writer = cv2.VideoWriter(str(path.absolute()), codec, fps, (width, height))
        if not self._writer.isOpened():
            raise SinkError(f"cannot write {path}: no permission, or no codec for {width}x{height}")

    def write(self, picture: np.ndarray, time_s: float) -> None:
        """Repeat the picture before until this one's time, then write it."""
        self._require_space()
        encoded = self._cv2.cvtColor(picture, self._cv2.COLOR_RGB2BGR)
        due = round(time_s * self._fps)
        while self._written and self._written < due:
            self._add(self._previous)
        if self._written <= due:
            self._add(encoded)
        self._previous = encoded

    def _add(self, encoded: np.ndarray) -> None:
        self._writer.write(encoded)
        self._written += 1

    def _require_space(self) -> None:
        """OpenCV's writer does not say when the disk is full, so we look ourselves."""
        free = shutil.disk_usage(self._path.parent).free
        if free < _MIN_FREE_BYTES:
            raise SinkError(
                f"the disk of {self._path} has {free >> 20} MB left; the video ends here; free "
                "some space or save elsewhere"
            )

    def close(self) -> None:
        """Finish the file, and see that it holds what was written."""
        self._writer.release()
        if not self._written:
            return
        check = self._cv2.VideoCapture(str(self._path.absolute()))
        found = int(check.get(self._cv2.CAP_PROP_FRAME_COUNT)) if check.isOpened() else 0
        check.release()
        if found < self._written:
            raise SinkError(
                f"{self._path} holds {found} of {self._written} pictures: the disk is full, or the "
                "size of files is limited"
            )


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
