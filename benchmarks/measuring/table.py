"""Table: what a benchmark prints, and what the report shows: the same cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.measuring.machine import machine_line
from benchmarks.measuring.rows import Row

DID_NOT_RUN = "did_not_run"


@dataclass(frozen=True)
class Table:
    """Rows of one run.

    Attributes:
        title: what was measured.
        columns: the first names the ways.
        cells: a text for each column.
        command: that measures it again.
        machine: it was measured on, in one line.
    """

    title: str
    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    command: str
    machine: str

    def markdown(self) -> str:
        """For a terminal and for Markdown pages."""
        lines = [self.title, "", _line(self.columns), "|" + "---|" * len(self.columns)]
        return "\n".join([*lines, *map(_line, self.cells), "", self.machine])


def table_of(
    rows: Sequence[Row], title: str, columns: Sequence[str], cells: Sequence[Sequence[str]]
) -> Table:
    """A table of rows of one run; what did not run has its reason in the second column.

    Args:
        rows: one for each line.
        title: of the table.
        columns: names, the first of the ways.
        cells: of each row; not looked at where the row did not run.
    """
    lines = []
    for row, texts in zip(rows, cells, strict=True):
        if DID_NOT_RUN in row.figures:
            empty = ("",) * (len(columns) - 2)
            lines.append((texts[0], f"did not run: {row.figures[DID_NOT_RUN]}", *empty))
        else:
            lines.append(tuple(texts))
    first = rows[0]
    return Table(
        title,
        tuple(columns),
        tuple(lines),
        command=first.command,
        machine=machine_line(first.machine),
    )


def number(figures: dict[str, object], name: str, decimals: int, factor: float = 1.0) -> str:
    """A figure as text; empty where it was not measured."""
    value = figures.get(name)
    return f"{factor * value:.{decimals}f}" if isinstance(value, int | float) else ""


def ratio_text(figures: dict[str, object]) -> str:
    """Median and interval of a ratio; empty where it was not measured."""
    ratio = figures.get("ratio")
    if not isinstance(ratio, dict):
        return ""
    return _with_interval(ratio, 2)


def share_text(figures: dict[str, object]) -> str:
    """Median and interval of a rate as a share of the engine's, in per cent; or empty."""
    share = figures.get("share_of_engine")
    if not isinstance(share, dict):
        return ""
    return _with_interval(share, 1, 100)


def _with_interval(ratio: dict[str, Any], digits: int, factor: float = 1) -> str:
    """A median with its interval, or with the number of rounds where they are too few for one."""
    median = f"{factor * ratio['median']:.{digits}f}"
    if ratio["low"] is None:
        count = len(ratio["rounds"])
        return f"{median} ({count} round{'s' if count > 1 else ''})"
    low, high = (f"{factor * ratio[name]:.{digits}f}" for name in ("low", "high"))
    return f"{median} ({low} to {high})"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
