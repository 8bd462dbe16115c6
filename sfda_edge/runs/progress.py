"""Progress bars, or a line in the log now and then where standard error is not a terminal.

Nothing is shown by any process but the first.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

logger = logging.getLogger(__name__)
Progress = Callable[[Iterable[Any]], Iterable[Any]]
# Figures of a logged step that the bar shows; the newest value of each stays.
SHOWN = ("loss", "score", "pixels_used")
_LOG_EVERY_S = 30.0


def silent(steps: Iterable[Any]) -> Iterable[Any]:
    """No display."""
    return steps


def progress_bar(title: str, total: int | None = None, done: int = 0) -> Progress:
    """A display to wrap steps in.

    Args:
        title: what is being done.
        total: number of steps; None for that of the steps themselves.
        done: how many of them an earlier run has done.
    """
    from sfda_edge.runs.distributed import rank

    def wrap(steps: Iterable[Any]) -> Iterator[Any]:
        if rank():
            yield from steps
            return
        if sys.stderr is None or not sys.stderr.isatty():
            yield from _logged(steps, title, total, done)
            return
        from tqdm import tqdm

        shown: dict[str, str] = {}
        with tqdm(steps, title, total, initial=done, leave=False) as bar:
            for step in bar:
                if isinstance(step, dict):
                    shown |= {key: f"{step[key]:.3f}" for key in SHOWN if key in step}
                    bar.set_postfix(shown, refresh=False)
                yield step

    return wrap


def _logged(steps: Iterable[Any], title: str, total: int | None, done: int) -> Iterator[Any]:
    """The steps, with a line in the log every half minute."""
    if total is None and isinstance(steps, Sized):
        total = len(steps)
    of_all = "" if total is None else f" of {total}"
    said_s = time.monotonic()
    for number, step in enumerate(steps, done + 1):
        yield step
        if time.monotonic() - said_s >= _LOG_EVERY_S:
            said_s = time.monotonic()
            logger.info("%s: %d%s", title, number, of_all)
