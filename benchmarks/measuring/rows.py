"""Measured rows as JSON Lines: one figure's way, conditions, machine and command in each line."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from runtime.credentials import without_credentials
from sfda_edge.errors import SfdaEdgeError

# What a table prints of a machine.
_EXPECTED = {"processor", "cores", "load_average_1min", "python", "packages", "measured"}


class RowsError(SfdaEdgeError):
    """A file of rows that cannot be read or written."""


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One measured row; a file of them has one in each line.

    Attributes:
        schema: of this line.
        benchmark: the program, ``peers`` for ``python -m benchmarks.peers``.
        network: architecture of the model; empty where there is none.
        size: of its input, WxH.
        precision: of its file.
        way: what was measured, as the table names it.
        conditions: what else this row was measured under, streams or argmax place for example.
        figures: by name, with the unit in the name.
        command: as it was typed, without credentials.
        commit: of this checkout, with ``+`` where files were changed; None outside of one.
        machine: see ``benchmarks.measuring.machine``.
    """

    schema: Literal[1] = 1
    benchmark: str
    network: str
    size: str
    precision: str
    way: str
    conditions: dict[str, str | int | float] = {}
    figures: dict[str, Any]
    command: str
    commit: str | None
    machine: dict[str, Any]

    @property
    def subject(self) -> tuple[str, str, str]:
        """What the ways of one table have in common."""
        return (self.network, self.size, self.precision)


@dataclass(frozen=True)
class Invocation:
    """A benchmark as it was started; a commit that is made meanwhile is not the measured code.

    Attributes:
        benchmark: the program, ``peers`` for ``python -m benchmarks.peers``.
        command: as it was typed, without credentials.
        commit: see ``commit``.
    """

    benchmark: str
    command: str
    commit: str | None


def invocation(program: str, arguments: Sequence[str] | None) -> Invocation:
    """To be made before anything is measured.

    Args:
        program: such as ``benchmarks.peers``.
        arguments: those of ``main``; None for the process's own.
    """
    return Invocation(program.rpartition(".")[2], command_line(program, arguments), commit())


@dataclass(frozen=True)
class Origin:
    """What all rows of one run have in common; see ``Row``."""

    invocation: Invocation
    network: str
    size: str
    precision: str

    def rows(
        self,
        figures: Mapping[str, dict[str, Any]],
        machine: dict[str, Any],
        conditions: dict[str, str | int | float],
    ) -> list[Row]:
        """A row for each way."""
        return [
            Row(
                benchmark=self.invocation.benchmark,
                network=self.network,
                size=self.size,
                precision=self.precision,
                way=way,
                conditions=conditions,
                figures=found,
                command=self.invocation.command,
                commit=self.invocation.commit,
                machine=machine,
            )
            for way, found in figures.items()
        ]


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Add rows at the end of a file, all at once; earlier ones stay as the history.

    A line that an earlier program did not finish stays one by itself, which ``read_rows`` names.

    Raises:
        RowsError: it cannot be written.
    """
    lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
    try:
        with path.open("a+b") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    lines = b"\n" + lines
            file.write(lines)
    except OSError as error:
        raise RowsError(f"{path} cannot be written: {error.strerror}") from error


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, oldest first.

    Raises:
        RowsError: it is missing, or a line is not a row.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise RowsError(f"{path} cannot be read: {error.strerror}") from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(msgspec.json.decode(line, type=Row))
            if missing := _EXPECTED - rows[-1].machine.keys():
                raise msgspec.ValidationError(f"its machine has no {min(missing)}")
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
            raise RowsError(f"{path}, line {number} is not a measured row: {error}") from error
    return rows


def command_line(program: str, arguments: Sequence[str] | None) -> str:
    """The command that makes a row again, without credentials."""
    words = sys.argv[1:] if arguments is None else arguments
    parts = [word.partition("=") for word in words]
    shown = [
        shlex.quote(f"{flag}{sign}{without_credentials(value)}")
        if sign and flag[:1] == "-"
        else shlex.quote(without_credentials(flag + sign + value))
        for flag, sign, value in parts
    ]
    return " ".join(["python", "-m", program, *shown])


def commit() -> str | None:
    """The commit of this checkout, with ``+`` where files differ from it."""
    here = Path(__file__).parent
    try:
        found = [
            subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True)
            for words in (["rev-parse", "--short=10", "HEAD"], ["status", "--porcelain", "-uno"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return found[0].stdout.strip() + ("+" if found[1].stdout.strip() else "")
