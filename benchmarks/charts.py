"""Charts as SVG that takes the page's colours, light or dark."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.pareto.front import Point, front

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _GREY, _ORANGE = "#1f7ae0", "#8a9099", "#d9730d"
_INK = "#010203"  # becomes the text colour of the page
_PERCENTILES = ("p50_ms", "p90_ms", "p95_ms", "p99_ms")


def latency_chart(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Median to 99th percentile of each way, with marks at p90 and p95, and the maximum."""
    names = [name for name, found in figures.items() if "p99_ms" in found]
    with _axes(9, 0.9 + 0.38 * len(names)) as (axes, svg):
        for place, name in enumerate(names):
            p50, p90, p95, p99 = (figures[name][key] for key in _PERCENTILES)
            axes.plot([p50, p99], [place, place], color=_GREY, linewidth=3, solid_capstyle="butt")
            axes.plot([p90, p95], [place, place], "|", color=_INK, markersize=9)
            axes.plot([p50], [place], "o", color=_BLUE, markersize=7)
            axes.plot([figures[name]["max_ms"]], [place], ".", color=_GREY, markersize=4)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis)
        axes.set_xlabel("ms a frame: median (dot), p90 and p95 (marks), p99 (end), maximum (point)")
    return svg.getvalue()


def front_chart(points: Sequence[Point]) -> str:
    """MIoU over latency; the front in blue and named, everything else grey."""
    best = front(points)
    with _axes(9, 4.5) as (axes, svg):
        others = [one for one in points if one not in best]
        axes.scatter([one.p50_ms for one in others], [one.miou for one in others], color=_GREY)
        axes.plot([one.p50_ms for one in best], [one.miou for one in best], "o-", color=_BLUE)
        for number, one in enumerate(best):
            axes.annotate(
                one.name,
                (one.p50_ms, one.miou),
                xytext=(8, -14 if number % 2 else 8),
                textcoords="offset points",
                fontsize=8,
            )
        axes.set_xlabel("ms a frame, median")
        axes.set_ylabel("mIoU, %")
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis)
        axes.margins(0.18)
    return svg.getvalue()


def line_chart(points: Sequence[tuple[float, float]], x_label: str, y_label: str) -> str:
    """One figure over another; both axes logarithmic, as growth is read as a slope."""
    with _axes(6, 3) as (axes, svg):
        axes.plot(*zip(*points, strict=True), "o-", color=_BLUE)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks([x for x, _ in points], [f"{x:g}" for x, _ in points])
        axes.minorticks_off()
        _plain_numbers(axes.yaxis)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
    return svg.getvalue()


def gain_chart(tasks: Mapping[str, Mapping[str, float]]) -> str:
    """MIoU of each task: the source model, ``bn`` and ``multiview``.

    Args:
        tasks: by name of the task: ``source``, ``bn``, ``multiview``; any of these.
    """
    colours = {"source": _GREY, "bn": _ORANGE, "multiview": _BLUE}
    with _axes(9, 0.9 + 0.34 * len(tasks)) as (axes, svg):
        for place, scores in enumerate(tasks.values()):
            axes.plot(
                [min(scores.values()), max(scores.values())], [place, place], color=_GREY, alpha=0.4
            )
        for method, colour in colours.items():
            found = [(s[method], place) for place, s in enumerate(tasks.values()) if method in s]
            if found:
                axes.plot(*zip(*found, strict=True), "o", color=colour, label=method)
        axes.set_yticks(range(len(tasks)), list(tasks))
        axes.invert_yaxis()
        axes.set_xlabel("mIoU, %")
        axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return svg.getvalue()


@contextlib.contextmanager
def _axes(width_in: float, height_in: float) -> Iterator[tuple[Axes, io.StringIO]]:
    """Axes of a new figure; when the ``with`` ends, the text has its SVG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    ink = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    settings: dict[Any, Any] = dict.fromkeys(ink, _INK)
    settings |= {"svg.fonttype": "none", "text.parse_math": False, "font.family": "sans-serif"}
    settings |= {"axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "report"}
    with rc_context(settings):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        axes = figure.subplots()
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
        text = io.StringIO()
        yield axes, text
        raw = io.StringIO()
        figure.savefig(raw, format="svg", transparent=True, metadata={"Date": None})
        text.write(_inline(raw.getvalue()))


def _inline(svg: str) -> str:
    """The element alone, as wide as its place, in the page's colour."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'<svg([^>]*?) width="[^"]*"', r"<svg\1", svg, count=1)
    svg = re.sub(r'<svg([^>]*?) height="[^"]*"', r"<svg\1", svg, count=1)
    return svg.replace(_INK, "currentColor")


def _plain_numbers(axis: Any) -> None:
    """``20`` and not ``2 x 10^1``."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
