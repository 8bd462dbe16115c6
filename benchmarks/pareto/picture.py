"""The points as a picture: the front in colour and named, everything else grey."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.pareto.front import Point, front
from sfda_edge.report.axes import new_axes


def save_picture(points: Sequence[Point], path: Path, title: str) -> None:
    """Write mIoU over latency, as the file's ending says (.svg, .png)."""
    best = front(points)
    with new_axes(8, 4.5) as axes:
        others = [one for one in points if one not in best]
        axes.scatter([one.p50_ms for one in others], [one.miou for one in others], color="#b0b6bd")
        axes.plot([one.p50_ms for one in best], [one.miou for one in best], "o-", color="#0969da")
        for number, one in enumerate(best):
            axes.annotate(
                one.name,
                (one.p50_ms, one.miou),
                xytext=(8, -12 if number % 2 else 6),
                textcoords="offset points",
                fontsize=8,
            )
        axes.set_xlabel("time of a frame, median, ms")
        axes.set_ylabel("mIoU, %")
        axes.set_title(title, fontsize=10)
        axes.set_xscale("log")
        axes.margins(0.15)
        axes.grid(alpha=0.3)
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.savefig(path)
