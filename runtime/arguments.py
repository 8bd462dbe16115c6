"""What a command line takes, with errors that say what was expected."""

from __future__ import annotations

import argparse
import math
import re
from typing import Any, NoReturn

from runtime.credentials import hide_credentials

# Which frames of a live source the model gets, and what comes out while there are none.
BUFFER_POLICIES = ("newest", "every", "every-with-deadline")
ON_LOSS = ("hold", "blank", "stop")
PAGE_ADDRESS = "127.0.0.1:8080"
_MOST = 2**31 - 1  # of the libraries' own numbers


class Parser(argparse.ArgumentParser):
    """Takes no shortened flags, and its errors do not repeat the secrets of URLs."""

    def __init__(self, **settings: Any) -> None:
        # ``--weights`` for ``--weights-key`` was taken for it.
        super().__init__(**{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        """Print usage and message, and end the program with 2."""
        super().error(hide_credentials(message))


def natural(text: str) -> int:
    """A whole number from 0."""
    return _whole_number(text, 0, _MOST)


def positive(text: str) -> int:
    """A whole number from 1."""
    return _whole_number(text, 1, _MOST)


def num_threads(text: str) -> int:
    """A number of threads; 0 leaves it to the library."""
    return _whole_number(text, 0, 1024)


def _whole_number(text: str, least: int, most: int) -> int:
    # Python itself rejects what has thousands of digits.
    if not text.isdecimal() or len(text) > len(str(most)) or not least <= int(text) <= most:
        limit = "" if most == _MOST and len(text) < len(str(most)) else f" to {most}"
        raise argparse.ArgumentTypeError(
            f"expected a whole number from {least}{limit}, got '{text}'"
        )
    return int(text)


def address(text: str) -> tuple[str, int]:
    """``HOST:PORT``, ``[IPv6]:PORT``, or ``PORT`` on loopback, as (host, port)."""
    match = re.fullmatch(r"(?:(?:\[([0-9a-fA-F:.%]+)\]|([\w.-]+)):)?(\d{1,5})", text)
    if not match or int(match[3]) > 65535:
        raise argparse.ArgumentTypeError(f"expected HOST:PORT such as {PAGE_ADDRESS}, got '{text}'")
    return match[1] or match[2] or "127.0.0.1", int(match[3])


def cpu_list(text: str) -> frozenset[int]:
    """``0-3,6`` as {0, 1, 2, 3, 6}.

    Raises:
        ArgumentTypeError: it is no such list.
    """
    if not re.fullmatch(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*", text):
        raise argparse.ArgumentTypeError(f"expected processors such as 0-3,6, got '{text}'")
    cpus: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        cpus |= set(range(int(first), int(last or first) + 1))
    if not cpus:
        raise argparse.ArgumentTypeError(f"expected processors such as 0-3,6, got '{text}'")
    return frozenset(cpus)


def positive_number(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got '{text}'")
    return value


def size_hw(text: str) -> tuple[int, int]:
    """``512x256`` (width x height) as (256, 512).

    Raises:
        ArgumentTypeError: it is no size, or an impossible one.
    """
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not match or min(int(side) for side in match.groups()) < 1:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 512x256, got '{text}'")
    return int(match[2]), int(match[1])
