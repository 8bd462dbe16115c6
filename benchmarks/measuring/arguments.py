"""What the benchmarks that keep rows take from the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TypeVar

from benchmarks.measuring.machine import allowed_cores
from benchmarks.records import output_file
from runtime.arguments import positive

Value = TypeVar("Value")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """``--threads``: a number, so that every library is told the same one."""
    parser.add_argument(
        "--threads", type=positive, default=allowed_cores(), help="of one inference (all cores)"
    )


def add_rows_file(parser: argparse.ArgumentParser) -> None:
    """``--out``: where rows are added."""
    parser.add_argument("--out", type=output_file, metavar="FILE.jsonl", help="add the rows")


def several(one: Callable[[str], Value]) -> Callable[[str], tuple[Value, ...]]:
    """For argparse: values with commas between them, each as ``one`` takes it and given once."""

    def values(text: str) -> tuple[Value, ...]:
        found = tuple(one(word) for word in text.split(","))
        if len(set(found)) < len(found):
            raise argparse.ArgumentTypeError(f"expected each value once, got '{text}'")
        return found

    return values


def some_of(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """For argparse: names with commas between them, each known and given once."""

    def names(text: str) -> tuple[str, ...]:
        found = tuple(text.split(","))
        if not set(found) <= set(known) or len(set(found)) < len(found):
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}, got '{text}'")
        return found

    return names
