"""Compare a replay with its recording."""

from __future__ import annotations

import numpy as np

from runtime.frames import Segmentation
from runtime.sources.replay import ReplaySource

_NAMED = 10


class ReplayCheck:
    """Counts label maps that differ from the recorded ones.

    Attributes:
        compared: number of frames.
        differing: frame number and share of its pixels, of each that differs.
    """

    def __init__(self, source: ReplaySource) -> None:
        self._source = source
        source.keeps_labels = True
        self.compared = 0
        self.differing: list[tuple[int, float]] = []

    def write(self, result: Segmentation) -> None:
        """Compare one frame."""
        recorded = self._source.labels.pop(result.frame.index)
        self.compared += 1
        if recorded.shape != result.label_map.shape:
            self.differing.append((result.frame.index, 1.0))
        elif (share := float(np.mean(recorded != result.label_map))) > 0:
            self.differing.append((result.frame.index, share))

    def line(self) -> str:
        """``identical``, or which frames differ and by how much."""
        if not self.compared:
            return "no frame was compared"
        if not self.differing:
            rest = ", but the recording was cut off" if self._source.cut_off else ""
            return f"identical: all {self.compared} label maps are as recorded{rest}"
        shown = [f"{index} ({_percent(share)})" for index, share in self.differing[:_NAMED]]
        some = ", ".join(shown) + (" …" if len(self.differing) > _NAMED else "")
        return (
            f"different: {len(self.differing)} of {self.compared} label maps are not as recorded; "
            f"frames with their share of pixels: {some}"
        )

    def close(self) -> None:
        """Nothing is held open."""


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %" if share >= 5e-5 else "below 0.01 %"
