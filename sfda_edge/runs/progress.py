"""Progress bars for people; silent where standard error is not a terminal.

Of several processes the first one shows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfda_edge.data.loading import Progress

# What of a logged step stands behind the bar; the newest value of each stays.
SHOWN = ("loss", "score", "pixels_used")


def progress_bar(title: str, total: int | None = None, done: int = 0) -> Progress:
    """A display to wrap ``total`` steps in, of which ``done`` were done by an earlier run.

    Without a total, steps that know their number say it.
    """
    from tqdm import tqdm

    from sfda_edge.training.distributed import rank

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
