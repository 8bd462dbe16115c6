"""Hide what a URL may hold of secrets."""

from __future__ import annotations

import re


def without_credentials(url: str) -> str:
    """The URL without user, password, query and fragment, which may hold tokens.

    Passwords with unescaped ``/``, ``?``, ``#`` or ``@`` are common with cameras, so everything up
    to the last ``@`` is taken for one.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    secret, at, rest = rest.rpartition("@")
    clean = re.split(r"[?#]", rest, maxsplit=1)
    hidden = "…@" if at or secret else ""
    return f"{scheme}://{hidden}{clean[0]}{'?…' if len(clean) > 1 else ''}"
