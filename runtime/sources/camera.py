"""A V4L2 camera."""

from __future__ import annotations

import sys
from pathlib import Path

from runtime.errors import SourceError
from runtime.sources.base import Source
from runtime.sources.capture import CaptureSource, load_opencv


def open_camera(index: int) -> Source:
    """The camera of this number.

    Raises:
        SourceError: it does not open.
    """
    cv2 = load_opencv()
    api = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
    capture = cv2.VideoCapture(index, api)
    if not capture.isOpened():
        raise SourceError(_no_camera(index))
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # a queue in the driver is nothing but delay
    return CaptureSource(f"camera{index}", capture, live=True)


def _no_camera(index: int) -> str:
    found = sorted(str(path) for path in Path("/dev").glob("video*"))
    seen = f"this machine has {', '.join(found)}" if found else "this machine has no /dev/video*"
    return (
        f"camera{index} does not open; {seen}. Check the cable and that your user is in the group "
        "'video' (in a container: --device /dev/video0), or try another SOURCE: a video file, a "
        "folder, an rtsp:// URL, or streetsynth, the clip that ships with the package"
    )
