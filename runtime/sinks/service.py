"""Tell systemd that the streams run: ready with the first results, alive with each one's frames."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Mapping

from runtime.frames import Segmentation
from runtime.sources.base import Source
from runtime.sources.watchdog import State

_MOST_WAIT_S = 0.1
_AWAY = (State.LOST, State.OPENING)


class Service:
    """Notifies the service manager that started this process (sd_notify's protocol).

    It is ready once every source has a result; one that is lost by then is not waited for. The
    watchdog is fed by frames of every source: when one gives none for longer than
    ``WatchdogSec``, the process is started again. A source that has ended, or is lost and opened
    again and again, is not waited for while another gives frames: a start would take that one
    down, too. One that hangs in its library is waited for, since a start is what helps. Results
    that stand for missing frames do not count.

    Args:
        address: of the manager's socket, from NOTIFY_SOCKET; ``@`` for an abstract one.
        sources: by name.
    """

    def __init__(self, address: str, sources: Mapping[str, Source]) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(_MOST_WAIT_S)  # a manager that does not listen holds nothing up
        self._every_s = int(os.environ.get("WATCHDOG_USEC", "0")) * 1e-6 / 4
        self._lock = threading.Lock()
        self._sources, self._states = sources, dict.fromkeys(sources, "")  # of the last results
        self._waits_for = set(sources)
        self._ready, self._fed_s = False, 0.0

    def state(self, name: str, state: str) -> None:
        """A source has a result in this state."""
        with self._lock:
            if self._states[name] == state:
                return
            self._states[name] = state
            self._tell()

    def _tell(self) -> None:
        """Send all states, once every source has one; with the first time that we are ready."""
        states = {name: found or self._lost(name) for name, found in self._states.items()}
        if not all(states.values()):
            return
        ready = "" if self._ready else "READY=1\n"
        self._ready = True
        many = len(self._states) > 1
        told = ", ".join(
            f"{name} is {found}" if many else f"the source is {found}"
            for name, found in states.items()
        )
        self._send(f"{ready}STATUS={told}")

    def _lost(self, name: str) -> str:
        state = self._sources[name].state
        return str(state) if state is State.LOST else ""

    def frame(self, name: str) -> None:
        """A source has a new frame; the watchdog is fed four times in its period at most."""
        with self._lock:
            if not self._ready:
                self._tell()  # another one may have been lost meanwhile
            self._waits_for.discard(name)
            now_s = time.monotonic()
            waits = any(not self._is_away(one) for one in self._waits_for)
            if waits or not self._every_s or now_s - self._fed_s < self._every_s:
                return
            self._fed_s = now_s
            self._waits_for = {one for one, state in self._states.items() if state != "ended"}
            self._send("WATCHDOG=1")

    def _is_away(self, name: str) -> bool:
        source = self._sources[name]
        return source.state in _AWAY and not source.hangs

    def ended(self, name: str) -> None:
        """A source has ended; with the last one, all ends."""
        with self._lock:
            self._waits_for.discard(name)
            self._states[name] = "ended"
            if all(state == "ended" for state in self._states.values()):
                self._send("STOPPING=1")
                self._socket.close()
            else:
                self._tell()  # the others may have waited for this one

    def _send(self, text: str) -> None:
        # A manager that went away is no reason to stop a stream.
        with contextlib.suppress(OSError):
            self._socket.sendto(text.encode(), self._address)


class ServiceSink:
    """Tells the service manager of one source."""

    def __init__(self, service: Service, name: str) -> None:
        self._service, self._name, self._ended = service, name, False

    def write(self, result: Segmentation) -> None:
        """Tell of the state, and of a new frame."""
        self._service.state(self._name, result.state)
        if not result.repeated:
            self._service.frame(self._name)

    def close(self) -> None:
        """The source ends."""
        if not self._ended:
            self._ended = True
            self._service.ended(self._name)
