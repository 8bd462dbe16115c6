"""What a program prints: results on standard output, errors and log lines on standard error."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import warnings
from datetime import datetime, timezone
from typing import NoReturn

from runtime.credentials import hide_credentials
from runtime.files import printable


def start_output() -> None:
    """Let every encoding show every text, and log with time and level. Call it first in a program.

    A terminal in Latin-1 or C gets escapes for what it cannot show. Pillow's warnings about images
    that it can read, such as one of a damaged EXIF tag, are not shown.
    """
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def start_log(log_format: str = "text") -> None:
    """Log from INFO on, one line a message, with control characters as escapes.

    Args:
        log_format: ``text``, or ``json`` for an object a line.
    """
    handler = _Handler()
    text = _PrintableFormatter("%(asctime)s %(levelname)s  %(message)s", "%H:%M:%S")
    handler.setFormatter(_JsonFormatter() if log_format == "json" else text)
    root = logging.getLogger()
    others = [one for one in root.handlers if not isinstance(one, _Handler)]
    if len(others) == len(root.handlers):
        logging.basicConfig(level=logging.INFO, handlers=[handler])
    else:  # a command that logs in another format than the program that started it
        root.handlers = [*others, handler]


class _PrintableFormatter(logging.Formatter):
    """Shows messages by ``printable``; nothing has the secrets of URLs, exceptions included."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        record.message = printable(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return hide_credentials(super().format(record))


class _Handler(logging.StreamHandler):
    """The one that this module has set up."""


class _JsonFormatter(logging.Formatter):
    """An object with time (ISO 8601, UTC), level, logger and message."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, timezone.utc)
        entry = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps({name: hide_credentials(value) for name, value in entry.items()})


def print_error(text: object) -> None:
    """``error: …`` on standard error, where somebody reads it."""
    if sys.stderr is not None:
        with contextlib.suppress(BrokenPipeError, ValueError):
            print(f"error: {printable(hide_credentials(str(text)))}", file=sys.stderr)


def print_result(text: str, end: str = "\n") -> None:
    """Print; a closed output, as of ``| head``, is no failure.

    Raises:
        OSError: the output cannot be written for another reason, such as a full disk.
    """
    if sys.stdout is None:  # closed before the program began
        return
    shown = "\n".join(printable(line) for line in text.split("\n"))
    try:
        print(shown, end=end, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def leave(code: int) -> NoReturn:
    """End the program; a thread that hangs in a library, such as a camera's, does not hold it up.

    Python would stop such a thread when its library returns, and C++ code ends the process for
    that: "FATAL: exception not rethrown".
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    if any(thread.daemon for thread in threading.enumerate()):
        os._exit(code)
    sys.exit(code)
