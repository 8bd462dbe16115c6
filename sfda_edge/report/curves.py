"""Curves and bars as pictures for a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sfda_edge.report.axes import new_axes, picture_of

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def curves(series: Series, unit: str, colours: Mapping[str, tuple[float, ...]] | None = None):
    """Lines over steps, as (H, W, 3) uint8.

    Args:
        series: name → steps and values.
        unit: what the values are.
        colours: of some names, RGB in [0, 1].
    """
    from matplotlib.ticker import MaxNLocator

    with new_axes(10, 3.6) as axes:
        for name, (steps, values) in series.items():
            colour = (colours or {}).get(name)
            style = "-" if len(steps) > 20 else "o-"
            axes.plot(steps, values, style, label=name, color=colour, linewidth=1.6, markersize=4)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(unit)
        axes.grid(alpha=0.3)
        axes.legend(
            fontsize=8, ncols=1 + len(series) // 8, loc="center left", bbox_to_anchor=(1, 0.5)
        )
        return picture_of(axes)


def paired_bars(names: Sequence[str], before: Sequence[float], after: Sequence[float], unit: str):
    """Two bars a name, as (H, W, 3) uint8."""
    with new_axes(10, 3.6) as axes:
        places = np.arange(len(names))
        axes.bar(places - 0.2, before, 0.38, label="source", color="#8c959f")
        axes.bar(places + 0.2, after, 0.38, label="adapted", color="#0969da")
        axes.set_xticks(places, names, rotation=40, ha="right")
        axes.set_ylabel(unit)
        axes.grid(axis="y", alpha=0.3)
        axes.legend()
        return picture_of(axes)


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Mean over the last ``window`` values, for noisy losses."""
    sums = np.cumsum(np.concatenate([[0.0], np.asarray(values, dtype=float)]))
    ends = np.arange(1, len(sums))
    starts = np.maximum(ends - window, 0)
    return ((sums[ends] - sums[starts]) / (ends - starts)).tolist()
