"""What the file of adaptation rows says, for the page and for the README."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.adaptation.table import mistakes_text, settings_of
from benchmarks.measuring.table import Table

AccuracyRow = Mapping[str, Any]
_COLUMNS = ("task", "scored images", "method", "seeds", "source", "last", "returned", "measured")


def current_rows(record: Mapping[str, Any]) -> list[AccuracyRow]:
    """The rows of today's settings: nothing was overridden, fp32 on a CPU as the others."""
    return [row for row in record["rows"] if settings_of(row)[3:] == ((), "fp32", "cpu")]


def accuracy_table(record: Mapping[str, Any]) -> Table:
    """Each method on each task with today's settings, mean and spread over seeds."""
    cells = []
    for (task, recipe), rows in sorted(_groups(current_rows(record)).items()):
        scores = [f"{rows[0]['source_miou']:.1f}", *(mean(rows, k) for k in ("final", "returned"))]
        measured = max(str(row.get("started", ""))[:10] for row in rows)
        cells.append((task, scored_on(task), recipe, str(len(rows)), *scores, measured))
    tasks, recipes = (",".join(dict.fromkeys(cell[place] for cell in cells)) for place in (0, 2))
    command = f"python -m benchmarks.adaptation accuracy --tasks {tasks} --recipes {recipes}"
    # Rows are of several machines, whose speed changes no score.
    note = "Commit and versions of each row: adaptation-accuracy.json."
    shown = mistakes_text({"rows": current_rows(record)})
    return Table(shown, _COLUMNS, tuple(cells), command=command, machine=note)


def scored_on(task: str) -> str:
    """What the scored images are to those that were adapted to."""
    if task.endswith("-out"):
        return "unlike those adapted to"
    return (
        "of the source domain" if task.endswith("-home") or task == "F" else "like those adapted to"
    )


def gains(record: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Mean mIoU of source, ``bn`` and ``multiview`` on each task that has both."""
    found: dict[str, dict[str, float]] = {}
    for (task, recipe), rows in sorted(_groups(current_rows(record)).items()):
        if recipe in ("bn", "multiview"):
            scores = found.setdefault(task, {"source": rows[0]["source_miou"]})
            scores[recipe] = statistics.mean(row["returned_miou"] for row in rows)
    return {task: scores for task, scores in found.items() if len(scores) == 3}


def rows_of(record: Mapping[str, Any], task: str, recipe: str) -> list[AccuracyRow]:
    """The rows of a method on a task with today's settings."""
    return _groups(current_rows(record)).get((task, recipe), [])


def mean(rows: Iterable[AccuracyRow], which: str) -> str:
    """Mean of ``final`` or ``returned`` scores, with the spread where there are several."""
    values = [row[f"{which}_miou"] for row in rows]
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def _groups(rows: Iterable[AccuracyRow]) -> dict[tuple[str, str], list[AccuracyRow]]:
    groups: dict[tuple[str, str], list[AccuracyRow]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["recipe"]), []).append(row)
    return groups
