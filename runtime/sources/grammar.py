"""What a user types as SOURCE.

| SOURCE                     | what                                    | when the model is slow |
|----------------------------|-----------------------------------------|------------------------|
| ``camera0``, ``camera1`` … | a V4L2 camera by number                 | newest frame           |
| ``/dev/v4l/by-id/…``       | a V4L2 camera by name, ``/dev/video0``  | newest frame           |
| ``csi0``                   | a camera on the board's own connector   | newest frame           |
| ``gst:PIPELINE``           | what a GStreamer pipeline gives         | newest frame           |
| ``rtsp://…``, ``http://…`` | a network stream                        | newest frame           |
| a video file or its URL    | ends when it ends                       | every frame            |
| a folder                   | its images, by number or name           | every frame            |
| ``"drive/*.png"``          | the images of a pattern, likewise       | every frame            |
| ``replay:FILE.mcap``       | a recording, at its own times           | every frame            |
| ``streetsynth``            | the labelled clip that ships with us    | every frame            |
"""

from __future__ import annotations

import re
from pathlib import Path

from runtime.credentials import without_credentials
from runtime.errors import SourceError
from runtime.files import printable_line
from runtime.images import IMAGE_SUFFIXES
from runtime.packaged import CLIP
from runtime.sources.base import Source
from runtime.sources.camera import open_camera
from runtime.sources.folder import open_folder, open_pattern
from runtime.sources.gstreamer import PipelineOpener, csi_words, pipeline_words
from runtime.sources.loop import LoopingSource
from runtime.sources.names import GST, pipeline_name
from runtime.sources.network import URL, is_file, open_url
from runtime.sources.reconnect import Opener, ReconnectingSource
from runtime.sources.replay import ReplaySource
from runtime.sources.settings import SourceSettings
from runtime.sources.video_file import open_video_file

_CSI = re.compile(r"csi(\d{1,2})")
_CAMERA = re.compile(r"(?:camera|/dev/video)(\d{1,3})|(/dev/v4l/by-(?:id|path)/[^/]+)")


def open_source(spec: str, settings: SourceSettings | None = None) -> Source:
    """Open what the user typed; see the table above.

    Raises:
        SourceError: there is nothing there, it gives no frames, or cannot do what is asked of it.
    """
    source = _opened(spec, settings or SourceSettings())
    if (shown := printable_line(source.name)) != source.name:
        source.rename(shown)  # pages and metrics are text
    return source


def _opened(spec: str, settings: SourceSettings) -> Source:
    if "\0" in spec:  # nothing has such a name, and libraries differ in what they make of it
        raise SourceError("source cannot be opened: embedded null byte")
    if (opener := _of_camera(spec, settings)) is not None:
        return _live(opener, settings)
    if settings.of_camera:
        raise SourceError(
            f"{', '.join(settings.of_camera)}: only of a camera; "
            f"'{without_credentials(spec)}' is another source"
        )
    if settings.loop and (spec.startswith("replay:") or _of_stream(spec) is not None):
        raise SourceError(f"--loop is for videos and images, not for {without_credentials(spec)}")
    if (opener := _of_stream(spec)) is not None:
        return _live(opener, settings)
    if settings.loop:
        return LoopingSource(lambda: _open_file(spec))
    return _open_file(spec)


def _live(opener: Opener, settings: SourceSettings) -> Source:
    return ReconnectingSource(opener, settings.limits, settings.reconnect, settings.late_name)


def _of_camera(spec: str, settings: SourceSettings) -> Opener | None:
    """What opens a camera; None when it is none."""
    if camera := _CAMERA.fullmatch(spec):
        device = camera.group(2) or f"/dev/video{int(camera.group(1))}"
        return lambda: open_camera(spec, device, settings)
    if csi := _CSI.fullmatch(spec):
        words = csi_words(int(csi.group(1)), settings)
        return PipelineOpener(spec, words)
    return None


def _of_stream(spec: str) -> Opener | None:
    """What opens a stream that has no end; None when it is none."""
    if spec.startswith(GST):
        words = pipeline_words(spec.removeprefix(GST))
        return PipelineOpener(pipeline_name(words), words)
    if URL.match(spec) and not is_file(spec):
        return lambda: open_url(spec)
    return None


def _open_file(spec: str) -> Source:
    """What ends: a recording, a video, a folder."""
    if spec.startswith("replay:"):
        return ReplaySource(Path(spec.removeprefix("replay:")))
    if URL.match(spec):
        return open_url(spec)
    return open_video_file(CLIP) if spec == "streetsynth" else _open_path(spec)


def _open_path(spec: str) -> Source:
    try:
        path = Path(spec)
        if spec and path.is_dir():
            return open_folder(path)
        if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
            raise SourceError(
                f"{path} is an image; name its folder, or a pattern such as "
                f"{path.with_name(f'*{path.suffix}')}"
            )
        if path.is_file():
            return open_video_file(path)
        if "*" in path.name:
            return open_pattern(path)
    except (OSError, ValueError) as error:  # a name too long or with a null byte, no permission
        reason = getattr(error, "strerror", None) or error
        where = getattr(error, "filename", None) or "source"
        raise SourceError(f"{where} cannot be opened: {reason}") from None
    raise SourceError(
        f"source '{without_credentials(spec)}' does not exist; give camera0, an rtsp:// or "
        "http:// URL, a video file, a folder of images, or streetsynth"
    )
