"""Progress bars; none where standard error is not a terminal, or in any process but the first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

Progress = Callable[[Iterable[Any]], Iterable[Any]]
# Figures of a logged step that the bar shows; the newest value of each stays.
SHOWN = ("loss", "score", "pixels_used")


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
    from tqdm import tqdm

    from sfda_edge.runs.distributed import rank

    def wrap(steps: Iterable[Any]) -> Iterator[Any]:
        shown: dict[str, str] = {}
        hidden = True if rank() else None  # None: unless it is a terminal
        with tqdm(steps, title, total, initial=done, disable=hidden, leave=False) as bar:
            for step in bar:
                if isinstance(step, dict):
                    shown |= {key: f"{step[key]:.3f}" for key in SHOWN if key in step}
                    bar.set_postfix(shown, refresh=False)
                yield step

    return wrap
