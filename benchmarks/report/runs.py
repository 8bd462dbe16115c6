"""Rows of many runs: the latest of each kind, and what changed over commits."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.measuring.rows import Row, read_rows

Run = list[Row]


def read_all_rows(folder: Path) -> list[Row]:
    """The rows of every ``*.jsonl`` in a folder, by file name, oldest first in each.

    Raises:
        RowsError: a file cannot be read.
    """
    return [row for path in sorted(folder.glob("*.jsonl")) for row in read_rows(path)]


def runs_of(rows: Iterable[Row], benchmark: str) -> list[Run]:
    """The rows of a benchmark, those of one run together, oldest first."""
    runs: dict[tuple[str, str], Run] = {}
    for row in rows:
        if row.benchmark == benchmark:
            runs.setdefault((row.command, str(row.machine["measured"])), []).append(row)
    return sorted(runs.values(), key=lambda run: str(run[0].machine["measured"]))


def latest(runs: Iterable[Run]) -> list[Run]:
    """The last run of each kind, oldest first; a disturbed one counts where there is no other."""
    found: dict[tuple[str, ...], Run] = {}
    for run in runs:
        earlier = found.get(_kind(run))
        if earlier is None or not disturbed(run) or disturbed(earlier):
            found.pop(_kind(run), None)  # to the end
            found[_kind(run)] = run
    return list(found.values())


def disturbed(run: Run) -> bool:
    """Whether others used the machine meanwhile."""
    return bool(run[0].machine.get("disturbed"))


def over_commits(runs: Iterable[Run]) -> list[list[Run]]:
    """The runs of each kind that was measured at more than one commit, oldest first."""
    found: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        found.setdefault(_kind(run), []).append(run)
    return [same for same in found.values() if len({run[0].commit for run in same}) > 1]


def _kind(run: Run) -> tuple[str, ...]:
    """Runs of one kind can be compared: the same command, networks and processor."""
    subjects = sorted({"/".join(row.subject) for row in run})
    return (run[0].command, str(run[0].machine["processor"]), *subjects)
