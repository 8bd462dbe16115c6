"""A V4L2 camera."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from runtime.errors import SourceError
from runtime.sources.base import Source
from runtime.sources.capture import CaptureSource, load_opencv
from runtime.sources.settings import SourceSettings

logger = logging.getLogger(__name__)


def open_camera(name: str, device: str, settings: SourceSettings) -> Source:
    """A camera by its device file.

    Args:
        name: what the user calls it.
        device: such as ``/dev/video0`` or a link of ``/dev/v4l/by-id``, which stays the same when
            cameras are plugged in another order.
        settings: size, rate and pixel format to ask for. What the camera does instead is logged.

    Raises:
        SourceError: it does not open.
    """
    cv2 = load_opencv()
    api = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
    # OpenCV takes a number or a path; some of its builds look for no path but /dev/videoN.
    path = Path(device).resolve()
    number = path.name.removeprefix("video")
    capture = cv2.VideoCapture(int(number) if number.isdecimal() else str(path), api)
    if not capture.isOpened():
        raise SourceError(_no_camera(name))
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # a queue in the driver is nothing but delay
    for refusal in _ask(capture, settings):
        logger.warning("%s: %s", name, refusal)
    return CaptureSource(name, capture, live=True)


def _ask(capture: Any, settings: SourceSettings) -> list[str]:
    """Set format, then size, then rate: each limits what the next can be; read all back."""
    import cv2

    if settings.pixel_format is not None:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*settings.pixel_format))
    asked_height, asked_width = settings.size_hw or (0, 0)
    if settings.size_hw is not None:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, asked_width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, asked_height)
    if settings.fps is not None:
        capture.set(cv2.CAP_PROP_FPS, settings.fps)
    code = int(capture.get(cv2.CAP_PROP_FOURCC))
    pixel_format = "".join(chr(code >> shift & 0xFF) for shift in (0, 8, 16, 24))
    width, height = (
        int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    )
    fps = capture.get(cv2.CAP_PROP_FPS)
    refused = []
    if settings.pixel_format not in (None, pixel_format):
        refused.append(f"asked for {settings.pixel_format}, it gives {pixel_format}")
    if settings.size_hw not in (None, (height, width)):
        refused.append(f"asked for {asked_width}x{asked_height}, it gives {width}x{height}")
    if settings.fps is not None and abs(settings.fps - fps) > 0.5:
        refused.append(f"asked for {settings.fps:g} frames a second, it gives {fps:g}")
    return refused


def _no_camera(name: str) -> str:
    found = sorted(str(path) for path in Path("/dev").glob("video*"))
    seen = f"this machine has {', '.join(found)}" if found else "this machine has no /dev/video*"
    return (
        f"{name} does not open; {seen}. Check the cable and that your user is in the group "
        "'video' (in a container: --device /dev/video0), or try another SOURCE: a video file, a "
        "folder, an rtsp:// URL, or streetsynth, the clip that ships with the package"
    )
