"""Write what a run logs for TensorBoard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sfda_edge.runs.progress import Progress

_FLUSHED_EVERY_S = 10


def with_tensorboard(progress: Progress, folder: Path, steps_done: int) -> Progress:
    """A display that also writes what each step logs as scalars, while the run continues.

    Args:
        progress: the display.
        folder: for TensorBoard's files.
        steps_done: of a resumed run; what was written for later steps is no longer shown.
    """

    def wrap(steps: Iterable[Any]) -> Iterator[Any]:
        from torch.utils.tensorboard import SummaryWriter

        first = steps_done + 1
        with SummaryWriter(str(folder), purge_step=first, flush_secs=_FLUSHED_EVERY_S) as writer:
            for line in progress(steps):
                for name, value in line.items():
                    if name != "step" and isinstance(value, int | float):
                        writer.add_scalar(name, value, line["step"])
                yield line

    return wrap
