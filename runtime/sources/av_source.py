"""Videos and network streams decoded by PyAV: FFmpeg's own errors, clocks and damage reports."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from functools import partial
from typing import Any

import numpy as np

from runtime.errors import SourceError
from runtime.frames import GRID_PX, LazyImage
from runtime.sources.base import ImageSource
from runtime.sources.containers import FfmpegLimits
from runtime.sources.stream_clock import StreamClock

# What PyAV raises when its time-out is over.
_SILENT = ("ExitError", "TimeoutError")
_NO_TIMES = 0x80  # AVFMT_NOTIMESTAMPS
_MOST_DAMAGED_IN_A_ROW = 250
# Formats whose first plane is the brightness in 8 bits; of the packed one every second byte is.
_PACKED = "yuyv422"
_FULL_RANGE = frozenset({"yuvj420p", "yuvj422p", "yuvj444p", "gray"})
_WITH_LUMA = _FULL_RANGE | {"yuv420p", "yuv422p", "yuv444p", "nv12", "nv21", _PACKED}
_JPEG_RANGE = 2
_FROM_LIMITED = np.clip((np.arange(256) - 16) * 255 / 219, 0, 255).astype(np.uint8)


class AvSource(ImageSource):
    """An opened container's first video.

    Frames that the decoder marks as damaged are left out and counted.

    Args:
        name: for people.
        where: path or URL.
        limits: which containers and protocols may be opened, and how long it may take.
        live: whether frames that are not taken in time are lost.

    Raises:
        SourceError: it does not open, or holds no video.
    """

    def __init__(self, name: str, where: str, limits: FfmpegLimits, live: bool) -> None:
        av = load_av()
        super().__init__()
        self.name, self.live = name, live
        self._errors = av.error.FFmpegError
        try:
            self._container = av.open(
                where,
                container_options=dict(limits.options),
                timeout=(limits.open_s, limits.read_s),
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            what = "does not open" if limits.open_s else "is not a video that can be read"
            raise SourceError(f"{name} {what}: {_reason(error, limits)}") from None
        if not self._container.streams.video:
            self._container.close()
            raise SourceError(f"{name} holds no video")
        stream = self._container.streams.video[0]
        if stream.codec_context is None:
            self._container.close()
            raise SourceError(f"{name} has a video of a codec that FFmpeg does not know")
        # Threads by frame decode faster and hand out each frame later.
        stream.thread_type = "SLICE" if live else "AUTO"
        if live:
            stream.codec_context.flags |= av.codec.context.Flags.low_delay
        rate = stream.average_rate
        self.fps = float(rate) if rate and 0 < rate < 1000 else None
        self.promised = stream.frames or None
        self.codec = stream.codec_context.name
        # Without times in the format, such as MJPEG over HTTP, FFmpeg makes up 25 a second.
        timed = not self._container.format.flags & _NO_TIMES
        self._clock = StreamClock() if timed else None
        self._frames = self._decoded(stream)

    def _decoded(self, stream: Any) -> Generator[Any, None, None]:
        """Frames in order; each notes when it was captured, or came."""
        damaged_in_a_row = 0
        for packet in self._container.demux(stream):
            arrived_ns = time.monotonic_ns()
            if self._closed or (self.live and not packet.size):
                return  # at its end a live stream's decoder gives out what it held back: old frames
            for frame in self._whole_frames(packet):
                if frame is None:
                    damaged_in_a_row += 1
                    self.damaged += 1
                    if damaged_in_a_row > _MOST_DAMAGED_IN_A_ROW:
                        raise SourceError(
                            f"{self.name}: {damaged_in_a_row} damaged frames in a row"
                        )
                    continue
                damaged_in_a_row = 0
                if self.live:
                    self._captured_ns = arrived_ns
                    if self._clock is not None and frame.time is not None:
                        self._captured_ns = self._clock.captured_ns(arrived_ns, frame.time)
                yield frame

    def _whole_frames(self, packet: Any) -> Iterator[Any]:
        """The frames that a packet completes; None for a damaged one."""
        try:
            frames = packet.decode()
        except self._errors:
            yield None
            return
        for frame in frames:
            yield None if frame.is_corrupt else frame

    def _next_image(self) -> np.ndarray | LazyImage | None:
        try:
            frame = next(self._frames)
        except StopIteration:
            if self.live:
                raise SourceError(
                    f"{self.name} ended after {self._count} frames; check its cable, power or "
                    "network"
                ) from None
            return None
        except (self._errors, OSError) as error:
            if not self.live:
                raise SourceError(f"{self.name} cannot be read on: {error.strerror}") from None
            silent = type(error).__name__ in _SILENT
            reason = "it no longer answers" if silent else error.strerror
            raise SourceError(
                f"{self.name} stopped after {self._count} frames ({reason}); check its cable, "
                "power or network"
            ) from None
        self._time_s = None if self.live and self._clock is None else frame.time
        if not self.live:
            return _converted(frame)
        sample = partial(_brightness, frame) if frame.format.name in _WITH_LUMA else None
        return LazyImage(partial(_converted, frame), sample, nbytes=3 * frame.height * frame.width)

    def _release(self) -> None:
        # The generator holds the decoder, and this object in a circle: Python would find it so late
        # that a camera which comes and goes filled the memory.
        self._frames.close()
        self._frames = _no_frames()
        self._container.close()


def _converted(frame: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright."""
    image = frame.reformat(format="rgb24", interpolation="BICUBIC").to_ndarray()
    if frame.rotation:
        image = np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
    return image


def _brightness(frame: Any) -> np.ndarray:
    """Brightness of every eighth pixel, (h, w) uint8 from 0 to 255, not turned upright."""
    plane, step = frame.planes[0], 2 if frame.format.name == _PACKED else 1
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    grid = rows[: frame.height : GRID_PX, : step * frame.width : step * GRID_PX]
    values = np.ascontiguousarray(grid)
    if frame.format.name in _FULL_RANGE or frame.color_range == _JPEG_RANGE:
        return values
    return _FROM_LIMITED[values]


def _no_frames() -> Generator[Any, None, None]:
    yield from ()


def has_av() -> bool:
    """Whether PyAV is installed."""
    try:
        load_av()
    except ModuleNotFoundError as error:
        if error.name == "av":
            return False
        raise
    except ImportError as error:
        raise SourceError(
            f"PyAV does not start ({error}): install it again, or remove it"
        ) from None
    return True


def load_av() -> Any:
    """PyAV, after OpenCV: in the other order OpenCV's first window hangs (PyAV #978).

    Its log lines are off: they repeat our errors, and may show a URL's password.
    """
    from runtime.sources.capture import load_opencv

    load_opencv()
    import av

    av.logging.set_level(None)
    return av


def _reason(error: Exception, limits: FfmpegLimits) -> str:
    """What FFmpeg found, without the address, which may hold a password."""
    kind = type(error).__name__
    if kind in _SILENT:
        return f"no answer within {limits.open_s:g} s; check address and power"
    if kind in ("HTTPUnauthorizedError", "HTTPForbiddenError"):
        return "it rejects user or password"
    text = getattr(error, "strerror", None) or "it is not a video"
    return f"{text}; check that it plays elsewhere"
