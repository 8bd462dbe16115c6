"""The page's addresses: page, live WebSocket, status, metrics, health, MJPEG."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from runtime.page.access import Access, Guard
from runtime.page.metrics import StreamMetrics
from runtime.page.view import LiveView

_STATIC = Path(__file__).parent / "static"
_TYPES = {"page.html": "text/html", "page.js": "text/javascript", "page.css": "text/css"}
# The page needs nothing from outside, and nothing else may run in it.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
Chosen = Callable[[HTTPConnection], LiveView]
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_WAIT_S = 0.5
_SOURCE = "source"


def build_app(views: Sequence[LiveView], metrics: StreamMetrics, access: Access) -> Starlette:
    """The application for the streams of one process; ``?source=NAME`` chooses one of several."""
    of = partial(_chosen, views)
    names = [view.name for view in views]
    routes = [
        Route("/", _file("page.html")),
        Route("/page.js", _file("page.js")),
        Route("/page.css", _file("page.css")),
        Route("/facts", lambda asked: JSONResponse({"streams": names, **of(asked).facts()})),
        Route("/status", lambda asked: JSONResponse(of(asked).status())),
        Route("/metrics", lambda _: Response(metrics.text(), media_type=_METRICS_TYPE)),
        Route("/healthz", lambda _: PlainTextResponse("ok")),
        Route("/readyz", lambda asked: _readiness([of(asked)] if _names_one(asked) else views)),
        Route("/stream.mjpg", partial(_mjpeg, of)),
        WebSocketRoute("/live", partial(_live, of)),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guard, access=access)])


def _chosen(views: Sequence[LiveView], asked: HTTPConnection) -> LiveView:
    """The stream that a request names; the first when it names none.

    Raises:
        HTTPException: there is none of that name.
    """
    name = asked.query_params.get(_SOURCE)
    for view in views:
        if name in (None, view.name):
            return view
    raise HTTPException(404, f"no such source; known: {', '.join(view.name for view in views)}")


def _names_one(asked: HTTPConnection) -> bool:
    return _SOURCE in asked.query_params


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> FileResponse:
        headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
        headers |= {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
        return FileResponse(_STATIC / name, media_type=_TYPES[name], headers=headers)

    return answer


def _readiness(views: Sequence[LiveView]) -> Response:
    waiting = [f"{view.name} is {view.source.state}" for view in views if not view.ready]
    if waiting:
        return PlainTextResponse(f"not ready: {', '.join(waiting)}", 503)
    return PlainTextResponse("ready")


async def _live(of: Chosen, socket: WebSocket) -> None:
    """Send the newest result whenever the viewer asks; a slow viewer asks less often."""
    view = of(socket)
    await socket.accept()
    seen, asking = 0, _asked(socket)
    try:
        while await asking:
            asking = _asked(socket)  # heard meanwhile: whether the viewer is still there
            while await view.wait(seen, _WAIT_S) == seen:
                if asking.done() or view.closed:
                    return
            seen, message = await asyncio.to_thread(view.message)
            await socket.send_bytes(message)
    except (WebSocketDisconnect, RuntimeError):
        return
    finally:
        asking.cancel()


def _asked(socket: WebSocket) -> asyncio.Task[bool]:
    """Wait for the viewer's one word; false when it left, or said another."""

    async def listen() -> bool:
        message = await socket.receive()
        if message["type"] != "websocket.receive":
            return False
        if message.get("text") == "next":
            return True
        await socket.close(1008, "expected: next")
        return False

    return asyncio.ensure_future(listen())


async def _mjpeg(of: Chosen, request: Request) -> StreamingResponse:
    """Overlays for programs that know no WebSocket."""
    view = of(request)

    async def parts() -> AsyncIterator[bytes]:
        seen = 0
        while not view.closed and not await request.is_disconnected():
            number = await view.wait(seen, _WAIT_S)
            if number == seen:
                await asyncio.sleep(0.05)
                continue
            seen = number
            jpeg = await asyncio.to_thread(view.picture)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            yield head.encode() + jpeg + b"\r\n"

    return StreamingResponse(parts(), media_type="multipart/x-mixed-replace; boundary=frame")
