"""What a program has found out, on standard output."""

from __future__ import annotations

import os
import sys


def say(text: str, end: str = "\n") -> None:
    """Print; that the reader has gone, as ``| head`` has when it has seen enough, is no failure.

    Raises:
        OSError: the output cannot be written for another reason, a full disk for example.
    """
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
