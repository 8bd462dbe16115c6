"""Progress bars for people; silent where standard error is not a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfda_edge.data.loading import Progress


def progress_bar(title: str, total: int, done: int = 0) -> Progress:
    """A display to wrap ``total`` steps in, of which ``done`` were done by an earlier run."""
    from tqdm import tqdm

    def wrap(steps: Iterable[Any]) -> Iterable[Any]:
        return tqdm(steps, title, total, initial=done, disable=None, leave=False)

    return wrap
