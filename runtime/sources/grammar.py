"""What a user types as SOURCE.

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
from pathlib import Path

from runtime.errors import SourceError
from runtime.packaged import CLIP
from runtime.sources.base import Source
from runtime.sources.camera import open_camera
from runtime.sources.credentials import without_credentials
from runtime.sources.folder import FolderSource
from runtime.sources.network import URL, open_url
from runtime.sources.video_file import open_video_file

_CAMERA = re.compile(r"camera(\d{1,3})")


def open_source(spec: str) -> Source:
    """Open what the user typed; see the table above.

    Raises:
        SourceError: there is nothing there, or it gives no frames.
    """
    camera = _CAMERA.fullmatch(spec)
    if camera:
        return open_camera(int(camera.group(1)))
    if URL.match(spec):
        return open_url(spec)
    if spec == "streetsynth":
        return open_video_file(CLIP)
    try:
        path = Path(spec)
        if spec and path.is_dir():
            return FolderSource(path)
        if path.is_file():
            return open_video_file(path)
    except (OSError, ValueError) as error:  # a name too long or with a null byte, no permission
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"source cannot be opened: {reason}") from None
    raise SourceError(
        f"source '{without_credentials(spec)}' does not exist; give camera0, an rtsp:// or "
        "http:// URL, a video file, a folder of images, or streetsynth"
    )
