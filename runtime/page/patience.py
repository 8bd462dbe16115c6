"""HTTP for the page's server: connections are few, and none is held without a request."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

# A browser opens six at once. All share the process's file descriptors with cameras and outputs.
MOST_CONNECTIONS = 64
# How often it is seen whether a connection without an answer under way has asked for one.
LOOK_S = 5.0


class PatientProtocol(H11Protocol):
    """Ends connections above ``MOST_CONNECTIONS``, and those that ask for nothing for a while.

    uvicorn waits for a first request, or the rest of one, without end.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or end it where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self.loop.call_later(LOOK_S, self._look, None)

    def _look(self, answered: Any) -> None:
        """End the connection if no request has come since the last look.

        Args:
            answered: what had been asked for then.
        """
        upgraded = self.transport.get_protocol() is not self  # to a WebSocket
        if upgraded or self.transport.is_closing():
            return
        waits = self.cycle is None or self.cycle.response_complete
        if waits and self.cycle is answered:
            self.transport.abort()
        else:
            self.loop.call_later(LOOK_S, self._look, self.cycle)
