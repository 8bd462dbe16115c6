"""``gst:PIPELINE`` and ``csi0``: what a GStreamer pipeline gives, in a process of its own.

GStreamer knows what no Python library does, such as the cameras and decoders of a Jetson. If it
crashes or hangs, only its own process does: ``gst-launch-1.0 PIPELINE ! … ! matroskamux ! fdsink``,
whose frames and times PyAV reads from a pipe. (y4menc writes rows with padding, and no times.)
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence

from runtime.credentials import hide_credentials
from runtime.errors import SourceError, missing_package
from runtime.sources.av_source import AvSource, has_av
from runtime.sources.base import Source
from runtime.sources.containers import GSTREAMER
from runtime.sources.settings import SourceSettings

logger = logging.getLogger(__name__)
LAUNCH, _INSPECT = "gst-launch-1.0", "gst-inspect-1.0"
# What gives the pictures of cameras on the board: on a Jetson, and on a Raspberry Pi.
CSI_ELEMENTS = ("nvarguscamerasrc", "libcamerasrc")
# A URL with a user and a password, or the property of a source for one.
_SECRET = re.compile(r"://[^/?#\s]*:[^/?#\s]*@|(?:-pw|password|token)=", re.IGNORECASE)
_END_S = 1.0
_MOST_LINES = 40


class PipelineOpener:
    """Opens a pipeline whose last element gives raw video, again and again.

    Args:
        name: for people.
        words: of the pipeline, as gst-launch takes them; no shell reads them.
    """

    def __init__(self, name: str, words: Sequence[str]) -> None:
        self._name, self._words = name, words
        if any(map(_SECRET.search, words)):
            logger.warning(
                "%s: every user of this machine sees the password, in the list of processes; "
                "rtsp:// without gst: keeps it",
                name,
            )
        self._child: subprocess.Popen[bytes] | None = None

    def __call__(self) -> Source:
        """Start the child.

        Raises:
            SourceError: GStreamer or PyAV is not installed, or the pipeline gives no picture.
        """
        if not has_launch():
            raise SourceError(f"{self._name} needs {LAUNCH}: apt install gstreamer1.0-tools")
        if not has_av():
            raise SourceError(missing_package(self._name, ModuleNotFoundError(name="av"), "video"))
        return GStreamerSource(self._name, self._words, self._keep)

    def _keep(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child

    def interrupt(self) -> None:
        """End a child that is still opening: it would keep the camera when we are gone."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                self._child.kill()


def pipeline_words(text: str) -> list[str]:
    """``videotestsrc ! tee`` as words.

    Raises:
        SourceError: there are none, or a quotation has no end.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise SourceError(f"gst: is no pipeline ({error})") from None
    if not words:
        raise SourceError("gst: needs a pipeline, such as gst:'v4l2src ! videoconvert'")
    return words


def csi_words(number: int, settings: SourceSettings) -> list[str]:
    """The pipeline of a camera on the board's own connector.

    Raises:
        SourceError: this GStreamer knows no such cameras.
    """
    if settings.pixel_format is not None:
        raise SourceError(f"csi{number}: --format is for cameras on USB; leave it out")
    size = ""
    if settings.size_hw is not None:
        size += f",width={settings.size_hw[1]},height={settings.size_hw[0]}"
    if settings.fps is not None:
        size += f",framerate={round(settings.fps * 1000)}/1000"
    jetson, raspberry = CSI_ELEMENTS
    if knows(jetson):
        words = f"{jetson} sensor-id={number} ! video/x-raw(memory:NVMM){size} ! nvvidconv"
    elif knows(raspberry) and number == 0:
        words = f"{raspberry} ! video/x-raw{size}"
    else:
        raise SourceError(
            f"csi{number}: this GStreamer has no nvarguscamerasrc, which JetPack brings, and no "
            "libcamerasrc, which finds csi0 of a Raspberry Pi; for others give gst:PIPELINE"
        )
    return words.split()


def has_launch() -> bool:
    """Whether GStreamer's program is installed."""
    return shutil.which(LAUNCH) is not None


def knows(element: str) -> bool:
    """Whether GStreamer has an element of this name."""
    if shutil.which(_INSPECT) is None:
        return False
    return subprocess.run([_INSPECT, "--exists", element], capture_output=True).returncode == 0


class GStreamerSource(AvSource):
    """The frames of a child process."""

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        started: Callable[[subprocess.Popen[bytes]], None] = lambda _child: None,
    ) -> None:
        reading, writing = os.pipe()
        # YUY2 pads rows of an odd width, which nobody behind the multiplexer knows.
        tail = "! videoscale add-borders=false ! "
        tail += "video/x-raw,width=(int)[2,32768,2],pixel-aspect-ratio=1/1 ! videoconvert ! "
        tail += "video/x-raw,format=YUY2 ! matroskamux streamable=true ! "
        tail += f"fdsink fd={writing} sync=false"
        try:
            self._child = subprocess.Popen(
                [LAUNCH, "-q", *words, *tail.split()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[writing],
                start_new_session=True,  # Ctrl-C is for us, who end it in order
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        started(self._child)
        self._pipe: int | None = reading
        self._said: deque[str] = deque(maxlen=_MOST_LINES)
        self._listener = threading.Thread(target=self._listen, name="gstreamer", daemon=True)
        self._listener.start()
        too_late = threading.Timer(GSTREAMER.open_s or 0, self.interrupt)
        too_late.start()
        try:
            super().__init__(name, f"pipe:{reading}", GSTREAMER, live=True)
        except SourceError:
            said = self._last_words()
            self._end_child()
            raise SourceError(
                f"{name} gives no picture: {said}. A pipeline ends with raw video and without a "
                "sink; try it with gst-launch-1.0 PIPELINE ! videoconvert ! autovideosink"
            ) from None
        finally:
            too_late.cancel()

    def _listen(self) -> None:
        """Keep the last lines that GStreamer says; it must not wait for a reader."""
        if self._child.stdout is not None:
            for line in self._child.stdout:
                if text := line.decode(errors="replace").strip():
                    self._said.append(text)

    def _last_words(self) -> str:
        """What GStreamer has said of its failure."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(_END_S)
        self._listener.join(_END_S)
        lines = list(self._said)
        errors = [line for line in lines if "ERROR" in line or "erroneous" in line]
        late = f"nothing within {GSTREAMER.open_s:g} s"
        return hide_credentials((errors or lines or [late])[0])

    def interrupt(self) -> None:
        """End the child; a read that waits for it returns."""
        with contextlib.suppress(ProcessLookupError):
            self._child.kill()

    def _end_child(self) -> None:
        self.interrupt()
        self._child.wait()
        self._listener.join(_END_S)
        if self._child.stdout is not None:
            self._child.stdout.close()
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None

    def _release(self) -> None:
        if self._pipe is not None:
            super()._release()
            self._end_child()
