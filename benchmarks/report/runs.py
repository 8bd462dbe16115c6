"""Rows of many runs, the latest of each command, and what changed over commits."""

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
    """The last run of each command; runs that others disturbed count where there is no other."""
    found: dict[str, Run] = {}
    for run in runs:
        earlier = found.get(run[0].command)
        if earlier is None or not _disturbed(run) or _disturbed(earlier):
            found[run[0].command] = run
    return list(found.values())


def _disturbed(run: Run) -> bool:
    return bool(run[0].machine.get("disturbed"))


def over_commits(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs of each command that was run at more than one commit, oldest first."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run[0].command, []).append(run)
    return {
        command: same for command, same in found.items() if len({run[0].commit for run in same}) > 1
    }
