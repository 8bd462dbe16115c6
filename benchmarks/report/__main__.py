"""python -m benchmarks.report: all results as one page, and the README's figures.

The page is one HTML file without scripts: accuracy, time against accuracy, peers, throughput,
streams, scale, engines, and what changed over commits. ``--readme`` writes the measured tables of a
README again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.records import output_file
from runtime.output import print_result, start_output
from sfda_edge.errors import DataError

RESULTS = Path(__file__).parents[1] / "results"
TITLE = "sfda-edge: measured"


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description="Make a page of all results."
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="(ours)")
    parser.add_argument(
        "--out", type=output_file, default="report.html", metavar="FILE", help="(%(default)s)"
    )
    parser.add_argument("--markdown", type=output_file, metavar="FILE", help="write the tables")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="write its figures again")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    start_output()
    args = build_parser().parse_args(arguments)
    from benchmarks.measuring.program import exit_code_of
    from benchmarks.measuring.rows import command_line

    command = command_line("benchmarks.report", arguments)
    return exit_code_of(lambda: _write(args, command))


def _write(args: argparse.Namespace, command: str) -> None:
    from benchmarks.report.content import sections
    from benchmarks.report.page import markdown, page

    found = sections(args.results)
    if args.readme is not None:
        _write_readme(args.readme, args.results)
    args.out.write_text(page(TITLE, found, command), encoding="utf-8")
    if args.markdown is not None:
        args.markdown.write_text(markdown(found), encoding="utf-8")
    print_result(f"{args.out}: {', '.join(section.title for section in found)}")


def _write_readme(readme: Path, results: Path) -> None:
    from benchmarks.report.readme import with_figures

    try:
        text = readme.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{readme} cannot be read: {error.strerror}") from None
    readme.write_text(with_figures(text, results), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
