"""Where frames come from: a camera, a network stream, a video file, a folder, the packaged clip.

| SOURCE                     | what                                    | when the model is slow |
|----------------------------|-----------------------------------------|------------------------|
| ``camera0``, ``camera1`` … | a V4L2 camera                           | newest frame           |
| ``rtsp://…``, ``http://…`` | a network stream                        | newest frame           |
| a video file or its URL    | ends when it ends                       | every frame            |
| a folder                   | its images, by name                     | every frame            |
| ``streetsynth``            | the labelled clip that ships with us    | every frame            |
"""

from __future__ import annotations

import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from runtime.errors import SourceError
from runtime.frames import Frame
from runtime.images import ImageError, list_images, read_image
from runtime.packaged import CLIP

__all__ = [
    "VIDEO_SUFFIXES",
    "Source",
    "SourceError",
    "open_source",
    "video_frames",
    "without_credentials",
]

_CAMERA = re.compile(r"camera(\d{1,3})")
_URL = re.compile(r"(?:rtsps?|https?)://", re.IGNORECASE)
VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v")
OPEN_TIMEOUT_MS = 5000
READ_TIMEOUT_MS = 5000


class Source(ABC):
    """Gives frames one after the other; close it, or use it in a ``with``.

    Attributes:
        name: for people; never holds a password.
        live: frames that are not taken in time are lost.
        fps: the source's own rate, or None when it has none.
    """

    name: str
    live: bool = False
    fps: float | None = None

    def __init__(self) -> None:
        self._count = 0

    @abstractmethod
    def _next_image(self) -> np.ndarray | None:
        """The next (H, W, 3) uint8 RGB image, or None at the end."""

    def read(self) -> Frame | None:
        """The next frame, or None at the end.

        Raises:
            SourceError: a live source is lost, or an image is damaged.
        """
        image = self._next_image()
        if image is None:
            return None
        frame = Frame(self._count, image, time.monotonic_ns())
        self._count += 1
        return frame

    def close(self) -> None:  # noqa: B027 - a folder holds nothing
        """Free what the source holds."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class CaptureSource(Source):
    """Whatever OpenCV captures: cameras, streams, video files."""

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
                f"{self.name} stopped giving frames after {self._count}; "
                "check its cable, power or network"
            )
        return None

    def close(self) -> None:
        self._capture.release()


class FolderSource(Source):
    """The images of a folder, by name."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.name = str(folder)
        self._paths = list_images(folder)
        if not self._paths:
            raise SourceError(f"{folder} holds no images")

    def _next_image(self) -> np.ndarray | None:
        if self._count == len(self._paths):
            return None
        try:
            return read_image(self._paths[self._count])
        except ImageError as error:
            raise SourceError(str(error)) from None


def open_source(spec: str) -> Source:
    """Open what the user typed; see the table above.

    Raises:
        SourceError: there is nothing there, or it gives no frames.
    """
    camera = _CAMERA.fullmatch(spec)
    if camera:
        return _open_camera(int(camera.group(1)))
    if _URL.match(spec):
        return _open_url(spec)
    if spec == "streetsynth":
        return _open_file(CLIP)
    try:
        path = Path(spec)
        if spec and path.is_dir():
            _quiet_cv2()  # its frames are resized by OpenCV
            return FolderSource(path)
        if path.is_file():
            return _open_file(path)
    except OSError as error:  # a name too long, a folder that may not be read
        raise SourceError(f"source cannot be opened: {error.strerror}") from None
    raise SourceError(
        f"source '{without_credentials(spec)}' is not there; give camera0, an rtsp:// or "
        "http:// URL, a video file, a folder of images, or streetsynth"
    )


def video_frames(path: Path) -> Iterator[np.ndarray]:
    """All frames of a video file, each (H, W, 3) uint8 RGB.

    Raises:
        SourceError: the file is missing, or holds no frame that can be decoded.
    """
    if not path.is_file():
        raise SourceError(f"{path} is not a file")
    with _open_file(path) as source:
        frame = source.read()
        if frame is None:
            raise SourceError(f"{path} holds no frame that can be decoded")
        while frame is not None:
            yield frame.image
            frame = source.read()


def without_credentials(url: str) -> str:
    """The URL without user, password, query and fragment, which may hold tokens.

    Passwords with unescaped ``/``, ``?``, ``#`` or ``@`` are common with cameras, so everything up
    to the last ``@`` is taken for one.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    secret, at, rest = rest.rpartition("@")
    clean = re.split(r"[?#]", rest, maxsplit=1)
    hidden = "…@" if at or secret else ""
    return f"{scheme}://{hidden}{clean[0]}{'?…' if len(clean) > 1 else ''}"


def _quiet_cv2() -> Any:
    """OpenCV, without its own log lines: they repeat our errors and may show a URL's password."""
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


def _open_camera(index: int) -> Source:
    cv2 = _quiet_cv2()
    api = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
    capture = cv2.VideoCapture(index, api)
    if not capture.isOpened():
        raise SourceError(_no_camera(index))
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # a queue in the driver is nothing but delay
    return CaptureSource(f"camera{index}", capture, live=True)


def _no_camera(index: int) -> str:
    found = sorted(str(path) for path in Path("/dev").glob("video*"))
    seen = f"this machine has {', '.join(found)}" if found else "this machine shows no /dev/video*"
    return (
        f"camera{index} does not open; {seen}. Check the cable and that your user is in the group "
        "'video' (in a container: --device /dev/video0), or try another SOURCE: a video file, a "
        "folder, an rtsp:// URL, or streetsynth, the clip that ships with the package"
    )


def _open_url(url: str) -> Source:
    cv2 = _quiet_cv2()
    limits = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        OPEN_TIMEOUT_MS,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        READ_TIMEOUT_MS,
    ]
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, limits)
    name = without_credentials(url)
    if not capture.isOpened():
        raise SourceError(
            f"{name} does not open within {OPEN_TIMEOUT_MS / 1000:.0f} s; "
            "check address, user and password, and that it plays elsewhere"
        )
    path = re.split(r"[?#]", url, maxsplit=1)[0].lower()
    is_file = path.startswith("http") and path.endswith(VIDEO_SUFFIXES)
    return CaptureSource(name, capture, live=not is_file)


def _open_file(path: Path) -> Source:
    cv2 = _quiet_cv2()
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise SourceError(f"{path} is not a video that OpenCV can read; re-encode it as H.264 mp4")
    return CaptureSource(str(path), capture, live=False)
