"""The rows of one run as points, a table and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.measuring.rows import Row
from benchmarks.measuring.table import Table, number, table_of
from benchmarks.pareto.front import Point, front

_FIGURES = ("p50_ms", "p99_ms", "miou")
_CSV_COLUMNS = ("run", "network", "size", "precision", "argmax", "backend", *_FIGURES)


def points_of(rows: Sequence[Row]) -> list[Point]:
    """The rows that have both figures."""
    return [point for row in rows if (point := _point(row)) is not None]


def _point(row: Row) -> Point | None:
    figures = row.figures
    if "p50_ms" not in figures or "miou" not in figures:
        return None
    return Point(name_of(row), figures["p50_ms"], figures["miou"])


def name_of(row: Row) -> str:
    """What tells the point from the others."""
    conditions = row.conditions
    coarse = ", coarse" if conditions["argmax"] == "coarse" else ""
    return f"{row.network} {row.size} {row.precision}{coarse}, {row.way} ({conditions['run']})"


def csv_lines(rows: Sequence[Row]) -> list[list[Any]]:
    """A heading and a line for each row; empty cells where nothing was measured."""
    lines: list[list[Any]] = [list(_CSV_COLUMNS)]
    for row in rows:
        values = [row.conditions["run"], row.network, row.size, row.precision]
        values += [row.conditions["argmax"], row.way]
        lines.append([*values, *(row.figures.get(name) for name in _FIGURES)])
    return lines


def table(rows: Sequence[Row]) -> Table:
    """All rows are of one run; the last column marks the front."""
    best = front(points_of(rows))
    columns = ["", "p50, ms", "p99, ms", "mIoU", "MB", "agreement with torch, %", ""]
    cells = []
    for row in rows:
        figures, point = row.figures, _point(row)
        texts = [number(figures, "p50_ms", 2), number(figures, "p99_ms", 2)]
        texts += [number(figures, "miou", 1), number(figures, "bytes", 1, 1e-6)]
        texts += [number(figures, "agreement_with_torch", 3, 100)]
        cells.append([name_of(row), *texts, "front" if point in best else ""])
    return table_of(rows, f"scored on {rows[0].conditions['validation']}", columns, cells)
