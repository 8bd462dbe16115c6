"""The rows of one run as a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.measuring.machine import machine_line
from benchmarks.measuring.rows import Row


def markdown(rows: Sequence[Row]) -> str:
    """A heading, the table, and the machine; the rows are of one run."""
    first = rows[0]
    columns = _FRAMES if first.conditions["what"] == "frames" else _VIDEO
    threads = first.conditions["threads"] or "automatic"
    lines = [
        f"{first.network}, {first.size}, {first.precision}, threads: {threads}",
        "",
        "| | " + " | ".join(columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for row in rows:
        if "did_not_run" in row.figures:
            reason = str(row.figures["did_not_run"]).replace("|", "\\|")
            lines.append(f"| {row.way} | did not run: {reason} |" + " |" * (len(columns) - 1))
        else:
            cells = [cell(row.figures) for cell in columns.values()]
            lines.append(f"| {row.way} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", machine_line(first.machine)])


def _number(name: str, decimals: int, factor: float = 1.0) -> Any:
    def cell(figures: dict[str, Any]) -> str:
        return f"{factor * figures[name]:.{decimals}f}" if name in figures else ""

    return cell


def _paced(figures: dict[str, Any]) -> str:
    """Missed deadlines of a camera, and the age of its answered frames."""
    if "paced" not in figures:
        return ""
    paced = figures["paced"]
    return f"{paced['missed']} of {paced['frames']}, {paced['age']['p95_ms']:.1f} ms"


def _ratio(figures: dict[str, Any]) -> str:
    if "ratio" not in figures:
        return ""
    ratio = figures["ratio"]
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


_FRAMES = {
    "p50, ms": _number("p50_ms", 2),
    "p99, ms": _number("p99_ms", 2),
    "time, ratio to the first": _ratio,
    "camera: missed, age p95": _paced,
    "same labels, %": _number("same_labels", 3, 100),
    "load, s": _number("load_s", 2),
    "first call, ms": _number("first_call_ms", 1),
}
_VIDEO = {"frames/s": _number("per_second", 1), "time, ratio to ours": _ratio}
