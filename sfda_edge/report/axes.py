"""new_axes: a figure to draw on, without a window and without changing the caller's matplotlib."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@contextlib.contextmanager
def new_axes(width_in: float, height_in: float) -> Iterator[Axes]:
    """Axes of a new figure; draw and take its picture within the ``with``.

    Texts are drawn literally: a ``$`` in the name of a class does not start a formula.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(width_in, height_in), layout="constrained", dpi=100)
        FigureCanvasAgg(figure)
        yield figure.subplots()


def picture_of(axes: Axes) -> np.ndarray:
    """The axes' figure as (H, W, 3) uint8."""
    canvas = axes.figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]
