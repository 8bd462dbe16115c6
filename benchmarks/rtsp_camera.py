"""RtspCamera: a real RTSP server on this machine, to be killed, stopped and frozen."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

from runtime.closing import Closing
from runtime.errors import StreamError

DEBIAN_PYTHON = "/usr/bin/python3"
NEEDED_PACKAGES = (
    "python3-gi, gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-good, gstreamer1.0-plugins-ugly"
)
FPS = 25
MOVING = "smpte"  # test bars with noise in a corner: neither frozen nor black
_SERVER = Path(__file__).with_name("rtsp_server.py")
_PROBE = "import gi; gi.require_version('GstRtspServer', '1.0')"


def can_serve() -> bool:
    """Whether Debian's gst-rtsp-server is installed."""
    if sys.platform != "linux" or not Path(DEBIAN_PYTHON).exists():
        return False
    return subprocess.run([DEBIAN_PYTHON, "-c", _PROBE], capture_output=True).returncode == 0


class RtspCamera(Closing):
    """A server on one port, with a moving picture at 25 frames a second in H.264.

    Args:
        width, height: of the picture.
        pattern: of videotestsrc.

    Attributes:
        url: with a password, which nothing may show.
        process: of the server.
    """

    def __init__(self, width: int = 160, height: int = 120, pattern: str = "ball") -> None:
        self._pattern = pattern
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"rtsp://user:secret@127.0.0.1:{self._port}/camera"
        self.start(width, height)

    def start(self, width: int = 160, height: int = 120) -> None:
        """Start the server; it takes connections when this returns."""
        command = [DEBIAN_PYTHON, str(_SERVER), str(self._port), str(width), str(height)]
        command.append(self._pattern)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self.process.stdout is None or self.process.stdout.readline() != "ready\n":
            raise StreamError(f"the RTSP server does not start; it needs {NEEDED_PACKAGES}")

    def show(self, pattern: str) -> None:
        """Change the pattern, such as to ``white`` or ``black``."""
        if self.process.stdin is None:
            raise AssertionError("it was opened with a pipe")
        self.process.stdin.write(f"{pattern}\n")
        self.process.stdin.flush()

    def pause(self) -> None:
        """Let it hang: its connections stay open, and nothing comes."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def close(self) -> None:
        """The same."""
        self.kill()
