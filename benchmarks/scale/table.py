"""The rows of one axis as a table."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measuring.rows import Row
from benchmarks.measuring.table import Table, number, table_of

# Figures of each axis, with their decimals.
_FIGURES = {
    "images": {"seconds": 0, "ms_per_image": 1, "peak_memory_gib": 2},
    "streams": {"images_per_second": 1},
    "sizes": {"p50_ms": 2, "p99_ms": 2, "ms_per_megapixel": 1},
    "classes": {"p50_ms": 2, "p99_ms": 2},
}


def table(rows: Sequence[Row]) -> Table:
    """All rows are of one run; times are compared with the first row."""
    first = rows[0]
    figures = _FIGURES[str(first.conditions["axis"])]
    columns = ["", *(name.replace("_", " ") for name in figures), "time, ratio to the first"]
    cells = []
    for row in rows:
        texts = [number(row.figures, name, decimals) for name, decimals in figures.items()]
        cells.append([row.way, *texts, f"{_ratio(row, first):.2f}"])
    shown = [f"{name} {value}" for name, value in first.conditions.items() if name != "axis"]
    where = f" at {first.size}" if first.size else ""
    return table_of(rows, f"{first.network}{where}, {', '.join(shown)}", columns, cells)


def _ratio(row: Row, first: Row) -> float:
    if "ratio" in row.figures:
        return float(row.figures["ratio"]["median"])
    return float(row.figures["seconds"] / first.figures["seconds"])
