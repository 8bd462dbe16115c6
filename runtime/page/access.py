"""Who may see the page: everybody on this machine, or whoever has the token."""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from runtime.errors import SinkError

TOKEN_VARIABLE = "SFDA_EDGE_TOKEN"
_LEAST_TOKEN = 16
_COOKIE = "sfda_edge_token"  # and the port: browsers send cookies of one port to all
# Browsers then show no picture of ours on another site's page.
_FOR_THIS_SITE = (b"cross-origin-resource-policy", b"same-origin")
Scope = MutableMapping[str, Any]
Channel = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class Access:
    """The rule for one server.

    Attributes:
        token: that has to be given; None on loopback, where none is needed.
    """

    token: str | None


def access_for(host: str) -> Access:
    """The rule for an address to listen on.

    Raises:
        SinkError: it can be reached from outside, and no token is set.
    """
    if is_loopback(host):
        return Access(None)
    token = os.environ.get(TOKEN_VARIABLE, "")
    if len(token) < _LEAST_TOKEN:
        raise SinkError(
            f"--serve {host} can be reached from other machines: set {TOKEN_VARIABLE} to a secret "
            f"of at least {_LEAST_TOKEN} characters, or serve on 127.0.0.1 and use an ssh tunnel"
        )
    if not (token.isascii() and token.isprintable()):
        raise SinkError(f"{TOKEN_VARIABLE} has characters that headers cannot carry; take ASCII")
    return Access(token)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Middleware that answers 403 to whoever may not see the page.

    On loopback, a name that is not of this machine is refused: another site's script could
    otherwise reach the page through a name of its own (DNS rebinding). A WebSocket's origin has to
    be the page, and pictures are not for other sites' pages: links to the page are. Over plain
    HTTP, browsers tell who asks on loopback alone.
    """

    def __init__(self, app: Any, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Channel, send: Channel) -> None:
        """Pass on, or answer."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        refusal: Response | None
        try:
            refusal = self._refusal(connection)
        except ValueError:  # a header that is no address
            refusal = PlainTextResponse("not an address", 403)

        async def send_for_this_site(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), _FOR_THIS_SITE]
            await send(message)

        if refusal is None:
            await self._app(scope, receive, send_for_this_site)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refusal(scope, receive, send)

    def _refusal(self, connection: HTTPConnection) -> Response | None:
        host = connection.headers.get("host", "")
        origin = connection.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return PlainTextResponse("another site's page", 403)
        if _is_embedded_elsewhere(connection):
            return PlainTextResponse("embedded in another site's page", 403)
        if self._access.token is None:
            name = urlsplit(f"//{host}").hostname
            known = name is not None and is_loopback(name)
            return None if known else PlainTextResponse("unknown name", 403)
        return self._refusal_of_token(connection, self._access.token)

    def _refusal_of_token(self, connection: HTTPConnection, token: str) -> Response | None:
        scheme, _, bearer = connection.headers.get("authorization", "").partition(" ")
        given = connection.query_params.get("token")
        known = (given, bearer if scheme.lower() == "bearer" else None)
        cookie = f"{_COOKIE}_{connection.url.port or 0}"
        if any(_same(one, token) for one in (*known, connection.cookies.get(cookie))):
            if given is None or connection.scope["type"] == "websocket":
                return None
            # The token leaves the address, which histories and screenshots keep.
            rest = connection.url.remove_query_params("token")
            query = f"?{rest.query}" if rest.query else ""
            response = RedirectResponse(f"{rest.path}{query}", 303)
            response.set_cookie(cookie, token, httponly=True, samesite="strict")
            return response
        return PlainTextResponse("a token is needed: ?token=…, or Authorization: Bearer …", 403)


def _is_embedded_elsewhere(connection: HTTPConnection) -> bool:
    """Whether a browser says that another site's page wants it, and not as a page of its own."""
    site = connection.headers.get("sec-fetch-site", "none")
    is_page = connection.headers.get("sec-fetch-dest") == "document"
    return site not in ("none", "same-origin") and not is_page


def _same(given: str | None, token: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode(), token.encode())
