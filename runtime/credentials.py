"""Hide what a URL may hold of secrets."""

from __future__ import annotations

import re
from urllib.parse import quote

# Passwords with unescaped /, ?, # or @ are common with cameras: up to the last @ it may be one.
_URL = re.compile(r"\b([a-z][a-z0-9+.-]*:/{1,2})([^\s'\"]*@)?([^\s'\"?#]*)([?#][^\s'\"]*)?", re.I)
# ``user:password@host`` without its scheme, or with a scheme that was mistyped.
_BARE = re.compile(r"[^\s'\":@]+:(?!/)[^\s'\"]*@(?=[\w\[])")
# Some cameras want them in the path: ``/user=admin&password=x&channel=1``.
# GStreamer's elements want ``user-id`` and ``user-pw``, perhaps in quotes.
_NAMED = re.compile(
    r"\b((?:user|proxy)-(?:id|pw)|user(?:name)?|pass(?:word|wd|phrase)?|pwd|token|api-?key)"
    r"\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^&\s'\"]+)",
    re.I,
)
# Of HTTP, and as a property of GStreamer's elements: ``Authorization=(string)"Basic …"``.
_HEADER = re.compile(r"\b((?:proxy-)?authorization)\s*[=:].*", re.I)


def without_credentials(url: str) -> str:
    """The URL without user, password, query and fragment, which may hold tokens."""
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(r"[\w+.-]+", scheme):  # no URL, but may hold one
        return hide_credentials(url)
    secret, at, rest = rest.rpartition("@")
    clean = re.split(r"[?#]", _NAMED.sub(r"\1=…", rest), maxsplit=1)
    hidden = "…@" if at or secret else ""
    return f"{scheme}://{hidden}{clean[0]}{'?…' if len(clean) > 1 else ''}"


def with_escaped_credentials(url: str) -> str:
    """The URL with ``/``, ``?`` and ``#`` of a password as ``%2F``, ``%3F`` and ``%23``.

    As they are they end the host's part: FFmpeg would ask the name service for half a password.
    """
    scheme, separator, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, colon, port = authority.partition(":")
    secret, at, place = rest.rpartition("@")
    is_host = not port or port.isdigit() or user.startswith("[")  # and the @ is of its path
    if not (separator and at and colon) or "@" in authority or is_host:
        return url
    password = quote(secret.removeprefix(f"{user}:"), safe="%!$&'()*+,;=:@")
    return f"{scheme}://{user}:{password}@{place}"


def hide_credentials(text: str) -> str:
    """A message without the secrets of URLs in it, typing slips included."""
    shown = _HEADER.sub(r"\1: …", _URL.sub(_clean, text))
    return _NAMED.sub(r"\1=…", _BARE.sub("…@", shown))


def _clean(found: re.Match[str]) -> str:
    scheme, secret, rest, query = found.groups()
    return f"{scheme}{'…@' if secret else ''}{rest}{'?…' if query else ''}"
