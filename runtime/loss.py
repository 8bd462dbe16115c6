"""LossPolicy: what comes out while a live source gives no frame."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from runtime.arguments import ON_LOSS
from runtime.errors import SourceError
from runtime.frames import Frame, Segmentation
from runtime.sources.base import Source
from runtime.sources.watchdog import WITHOUT_FRAMES, State

REPEAT_EVERY_S = 0.5


class LossPolicy:
    """Stands for frames that do not come, twice a second; never invents one.

    Args:
        on_loss: ``hold`` repeats the last result, ``blank`` gives a map without any class and a
            black picture, ``stop`` ends the stream with an error.
        blank_label: the label of no class.
        clock: seconds, monotonic.
    """

    def __init__(
        self, on_loss: str, blank_label: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if on_loss not in ON_LOSS:
            raise SourceError(f"on-loss is one of {', '.join(ON_LOSS)}, not '{on_loss}'")
        self._on_loss, self._blank_label, self._clock = on_loss, blank_label, clock
        self._next_s = 0.0

    def result(self, source: Source, last: Segmentation | None) -> Segmentation | None:
        """What stands for the frame that does not come; None while nothing is due.

        Args:
            source: the one that is waited for.
            last: its last result; before the first there is nothing to repeat.

        Raises:
            SourceError: the source gives no frames, and the stream is to stop.
        """
        state = source.state
        if not source.live or state not in WITHOUT_FRAMES:
            self._next_s = 0.0
            return None
        if self._on_loss == "stop" and state is not State.OPENING:
            raise SourceError(f"{source.name} is {state}: stopped, as --on-loss stop says")
        if self._on_loss == "stop" or last is None or self._clock() < self._next_s:
            return None
        self._next_s = self._clock() + REPEAT_EVERY_S
        if self._on_loss == "blank":
            last = self._blank(last)
        return replace(last, state=str(state), repeated=True, timing={})

    def _blank(self, last: Segmentation) -> Segmentation:
        frame = last.frame
        return Segmentation(
            frame=Frame(frame.index, np.zeros_like(frame.image), frame.captured_ns),
            label_map=np.full_like(last.label_map, self._blank_label),
            timing={},
        )
