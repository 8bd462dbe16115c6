"""Tell systemd that the stream runs: ready with the first result, alive with each frame."""

from __future__ import annotations

import contextlib
import os
import socket
import time

from runtime.frames import Segmentation

_MOST_WAIT_S = 0.1


class ServiceSink:
    """Notifies the service manager that started this process (sd_notify's protocol).

    The watchdog is fed by frames: a stream whose camera is lost for longer than ``WatchdogSec`` is
    restarted. Results that stand for missing frames do not count.

    Args:
        address: of the manager's socket, from NOTIFY_SOCKET; ``@`` for an abstract one.
    """

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(_MOST_WAIT_S)  # a manager that does not listen holds nothing up
        self._every_s = int(os.environ.get("WATCHDOG_USEC", "0")) * 1e-6 / 4
        self._state, self._fed_s = "", 0.0

    def write(self, result: Segmentation) -> None:
        """Feed the watchdog, at most four times in its period, and tell a change of state."""
        if result.state != self._state:
            ready = "" if self._state else "READY=1\n"
            self._state = result.state
            self._send(f"{ready}STATUS=the source is {result.state}")
        if result.repeated:
            return
        now_s = time.monotonic()
        if self._every_s and now_s - self._fed_s >= self._every_s:
            self._fed_s = now_s
            self._send("WATCHDOG=1")

    def close(self) -> None:
        """The stream ends."""
        self._send("STOPPING=1")
        self._socket.close()

    def _send(self, text: str) -> None:
        # A manager that went away is no reason to stop a stream.
        with contextlib.suppress(OSError):
            self._socket.sendto(text.encode(), self._address)
