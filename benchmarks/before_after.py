"""python -m benchmarks.before_after: the README's picture, from the packaged data only."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.records import output_file


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.before_after", description="Draw the README's picture."
    )
    parser.add_argument(
        "--out",
        type=output_file,
        default=Path("before_after.jpg"),
        metavar="FILE",
        help="a .jpg or .png (default: %(default)s)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    args = build_parser().parse_args(arguments)
    from benchmarks.before_after_picture import draw

    print(f"{args.out}: {', '.join(draw(args.out)[1:3])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
