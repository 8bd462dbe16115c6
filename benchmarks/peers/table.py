"""The rows of one run as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.measuring.rows import Row
from benchmarks.measuring.table import Table, number, ratio_text, table_of


def table(rows: Sequence[Row]) -> Table:
    """All rows are of one run of ``frames`` or of ``video``."""
    first = rows[0]
    threads = first.conditions["threads"]
    title = f"{first.network}, {first.size}, {first.precision}, threads: {threads}"
    if first.conditions["what"] == "video":
        columns = ["", "frames/s", "time, ratio to ours"]
        cells = [
            [row.way, number(row.figures, "per_second", 1), ratio_text(row.figures)] for row in rows
        ]
        return table_of(rows, title, columns, cells)
    camera = f"{first.conditions['camera_fps']}/s camera: missed, age p95"
    columns = ["", "p50, ms", "p99, ms", "time, ratio to the first", camera, "same labels, %"]
    columns += ["first map, s"]
    return table_of(rows, title, columns, [_frame_cells(row) for row in rows])


def _frame_cells(row: Row) -> list[str]:
    figures = row.figures
    return [
        row.way,
        number(figures, "p50_ms", 2),
        number(figures, "p99_ms", 2),
        ratio_text(figures),
        _paced(figures),
        number(figures, "same_labels", 3, 100),
        _to_first(figures),
    ]


def _to_first(figures: dict[str, Any]) -> str:
    """Opening and the first call together: some ways call the network while they are opened."""
    if "load_s" not in figures:
        return ""
    return f"{figures['load_s'] + figures['first_call_ms'] / 1000:.2f}"


def _paced(figures: dict[str, Any]) -> str:
    """Missed deadlines of a camera, and the age of its answered frames."""
    if "paced" not in figures:
        return ""
    paced = figures["paced"]
    return f"{paced['missed']} of {paced['frames']}, {paced['age']['p95_ms']:.1f} ms"
