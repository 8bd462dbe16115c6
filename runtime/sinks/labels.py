"""Label maps as files: a PNG a frame, or a lossless video. Pixels are class numbers."""

from __future__ import annotations

import logging
from pathlib import Path

from runtime.errors import SinkError, missing_package
from runtime.files import whole_or_not_at_all
from runtime.frames import Segmentation
from runtime.sinks import Sink
from runtime.sinks.encoders import FFV1, AvEncoder
from runtime.sinks.split import free_path
from runtime.sinks.video import FrameTimes
from runtime.sources.av_source import has_av

logger = logging.getLogger(__name__)
_VIDEO = ".mkv"
_LOSSY = (".mp4", ".avi", ".mov", ".webm", ".m4v")  # nobody means a folder by these


def open_label_sink(path: Path, fps: float | None, live: bool) -> Sink:
    """The sink for a name: a lossless video for ``.mkv``, else PNGs in a folder.

    Args:
        path: of the file or folder.
        fps: of the source; None for sources without a rate.
        live: whether its frames have times of capture.

    Raises:
        SinkError: it cannot be written, or PyAV is missing for a video.
    """
    if path.suffix.lower() in _LOSSY:
        raise SinkError(f"--labels {path}: name a folder, or a lossless video {path.stem}{_VIDEO}")
    if path.suffix.lower() == _VIDEO:
        if not path.parent.is_dir():
            raise SinkError(f"cannot write {path}: the folder {path.parent} does not exist")
        return LabelVideoSink(path, FrameTimes(fps, live))
    return LabelImagesSink(path)


class LabelImagesSink:
    """Writes ``FRAME.png`` of each new frame, 8 bits, into a folder that it makes.

    Numbers begin at 0 with each start: beside label maps of an earlier one, the folder gets a
    number, as in ``labels-2``.

    Raises:
        SinkError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        import cv2

        try:
            if folder.is_dir() and next(folder.glob("*.png"), None) is not None:
                taken, folder = folder, free_path(folder)
                logger.warning("--labels: %s has label maps already; written to %s", taken, folder)
            self._cv2, self._folder = cv2, folder
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(f"cannot make {folder}: {error.strerror}") from None

    def write(self, result: Segmentation) -> None:
        """Write one label map; a repeated result has none of its own.

        Raises:
            SinkError: the disk is full.
        """
        if result.repeated:
            return
        fast = [self._cv2.IMWRITE_PNG_COMPRESSION, 1]
        _, png = self._cv2.imencode(".png", result.label_map, fast)
        path = self._folder / f"{result.frame.index:08d}.png"
        try:
            with whole_or_not_at_all(path) as part:  # a kill leaves no half of a map
                part.write_bytes(png.tobytes())
        except OSError as error:
            raise SinkError(f"cannot write {path}: {error.strerror}") from None

    def close(self) -> None:
        """Each file is whole already."""


class LabelVideoSink:
    """Writes FFV1 in Matroska, grey: every pixel comes back as it was."""

    def __init__(self, path: Path, times: FrameTimes) -> None:
        if not has_av():
            missing = ModuleNotFoundError(name="av")
            raise SinkError(missing_package(f"--labels {path}", missing, "video"))
        self._path, self._times = path, times
        self._encoder: AvEncoder | None = None

    def write(self, result: Segmentation) -> None:
        """Add one label map; a repeated result has none of its own.

        Raises:
            SinkError: it cannot be written.
        """
        if result.repeated:
            return
        time_s = self._times.since_first(result)
        if self._encoder is None:
            height, width = result.label_map.shape
            self._encoder = AvEncoder(self._path, (height, width), self._times.fps, codec=FFV1)
        self._encoder.write(result.label_map, time_s)

    def close(self) -> None:
        """Finish the file."""
        if self._encoder is not None:
            encoder, self._encoder = self._encoder, None
            encoder.close()
