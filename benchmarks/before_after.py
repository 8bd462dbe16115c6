"""python -m benchmarks.before_after: the README's picture, from the packaged data only."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measuring.program import exit_code_of
from benchmarks.records import picture_file
from runtime.output import print_result, start_output


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.before_after", description="Draw the README's picture."
    )
    parser.add_argument(
        "--out",
        type=picture_file,
        default=Path("before_after.jpg"),
        metavar="FILE",
        help="a .jpg or .png (default: %(default)s)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    start_output()
    args = build_parser().parse_args(arguments)

    def run() -> None:
        from benchmarks.before_after_picture import draw

        print_result(f"{args.out}: {', '.join(draw(args.out)[1:3])}")

    return exit_code_of(run)


if __name__ == "__main__":
    sys.exit(main())
