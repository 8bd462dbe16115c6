"""What the benchmarks that keep rows take from the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from benchmarks.measuring.machine import allowed_cores
from benchmarks.records import output_file
from runtime.arguments import positive, size_hw


def add_threads(parser: argparse.ArgumentParser) -> None:
    """``--threads``: a number, so that every library is told the same one."""
    parser.add_argument(
        "--threads", type=positive, default=allowed_cores(), help="of one inference (all cores)"
    )


def add_rows_file(parser: argparse.ArgumentParser) -> None:
    """``--out``: where rows are added."""
    parser.add_argument("--out", type=output_file, metavar="FILE.jsonl", help="add the rows")


def sizes_hw(text: str) -> tuple[tuple[int, int], ...]:
    """``512x256,1024x512`` as ((256, 512), (512, 1024))."""
    return tuple(size_hw(one) for one in text.split(","))


def some_of(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """For argparse: names with commas between them, each known and given once."""

    def names(text: str) -> tuple[str, ...]:
        found = tuple(text.split(","))
        if not set(found) <= set(known) or len(set(found)) < len(found):
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}, got '{text}'")
        return found

    return names
