"""PageServer: serves the page in a thread of its own."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Sequence

import uvicorn

from runtime.closing import Closing
from runtime.errors import SinkError
from runtime.page.access import access_for, is_loopback
from runtime.page.app import build_app
from runtime.page.metrics import StreamMetrics
from runtime.page.patience import PatientProtocol
from runtime.page.view import LiveView

logger = logging.getLogger(__name__)
_CLOSE_S = 1.0


class PageServer(Closing):
    """The page at an address; its viewers never slow the stream.

    Args:
        views: what is shown, a stream each.
        metrics: of all streams.
        address: host and port; port 0 takes a free one.

    Raises:
        SinkError: the address cannot be used, or needs a token.

    Attributes:
        url: of the page.
    """

    def __init__(
        self, views: Sequence[LiveView], metrics: StreamMetrics, address: tuple[str, int]
    ) -> None:
        host, port = address
        access = access_for(host)
        self._views, self._socket = views, _listen(host, port)
        config = uvicorn.Config(
            build_app(views, metrics, access),
            log_config=None,
            log_level="error",
            access_log=False,
            lifespan="off",
            http=PatientProtocol,
            ws="websockets-sansio",
            ws_max_size=1024,
            ws_per_message_deflate=False,  # JPEG and PNG are compressed already
            timeout_graceful_shutdown=1,
        )
        try:
            config.load()
        except (Exception, SystemExit) as error:  # such as a WebSocket library of another version
            self._socket.close()
            raise SinkError(f"the page does not start: {error}") from None
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)
        self._thread.start()
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}/"
        note = "" if is_loopback(host) else " (with ?token=…)"
        logger.info("page: %s%s", self.url, note)

    def _run(self) -> None:
        with contextlib.suppress(SystemExit):
            self._server.run(sockets=[self._socket])

    def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._server.force_exit = True
        for view in self._views:
            view.let_viewers_go()
        self._thread.join(_CLOSE_S)
        self._socket.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise SinkError(f"cannot serve on {host}:{port}: {error.strerror or error}") from None
