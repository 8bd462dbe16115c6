"""The card's picture: frames, the source model's labels, and those of the bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from export.gate.scores import LabelMap
from runtime.bundle.labels import LabelSpace
from runtime.overlay import Overlay
from sfda_edge.report.contact_sheet import contact_sheet, save_picture

_ROWS, _ROW_PX = 3, 170


def draw_card(
    path: Path, frames: Sequence[np.ndarray], space: LabelSpace, columns: dict[str, LabelMap]
) -> None:
    """A row for each of some frames, spread over all; a column for each way to label them.

    Args:
        path: a .jpg.
        frames: (H, W, 3) uint8 at the input size.
        space: of the labels.
        columns: title → what labels a frame.

    Raises:
        RunError: the file cannot be written.
    """
    overlay = Overlay(space, legend=False)
    chosen = np.unique(np.linspace(0, len(frames) - 1, _ROWS).round().astype(int))
    rows = [
        [frames[i], *(overlay.draw(frames[i], label(frames[i])) for label in columns.values())]
        for i in chosen
    ]
    save_picture(path, contact_sheet(rows, ["frame", *columns], space, _ROW_PX))
