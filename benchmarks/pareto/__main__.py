"""python -m benchmarks.pareto RUN … --validation IMAGES: what accuracy costs in time.

Each run is exported in each size, precision and place of the arg-max, run on each backend, scored
on labelled images and timed in turn with all others. The table names the front: the points that
no other beats in both.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measuring.arguments import add_rows_file, add_threads, several, some_of
from benchmarks.records import output_file
from runtime.arguments import positive, size_hw
from runtime.backends import BACKENDS
from runtime.credentials import without_credentials
from runtime.output import start_output

if TYPE_CHECKING:
    from benchmarks.measuring.rows import Invocation, Row


PRECISIONS = ("fp32", "fp16", "int8")


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pareto", description="Measure what accuracy costs in time."
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="(the packaged model)")
    parser.add_argument("--validation", default="streetsynth:clip", help="(default: %(default)s)")
    parser.add_argument("--validation-labels", type=Path, metavar="DIR", help="of a plain folder")
    parser.add_argument(
        "--sizes", type=several(size_hw), default=(None,), help="W1xH1,W2xH2 (the run's own)"
    )
    parser.add_argument(
        "--precisions", type=some_of(PRECISIONS), default="fp32,fp16", help="(%(default)s)"
    )
    parser.add_argument(
        "--argmax", type=some_of(("full", "coarse")), default="full", help="(%(default)s)"
    )
    parser.add_argument(
        "--backends",
        type=some_of(tuple(BACKENDS)),
        default="onnxruntime,openvino",
        help="(%(default)s)",
    )
    add_threads(parser)
    parser.add_argument("--seconds", type=positive, default=3, help="of each (%(default)s)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep the bundles there")
    add_rows_file(parser)
    parser.add_argument("--csv", type=output_file, metavar="FILE.csv", help="write the table")
    parser.add_argument("--plot", type=output_file, metavar="FILE.svg", help="write a picture")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    start_output()
    args = build_parser().parse_args(arguments)
    from benchmarks.measuring.program import keep_and_print
    from benchmarks.measuring.rows import invocation
    from benchmarks.pareto.table import table

    begun = invocation("benchmarks.pareto", arguments)
    draw = partial(_draw, args.csv, args.plot)
    return keep_and_print(lambda: _measure(args, begun), table, args.out, then=draw)


def _draw(table_file: Path | None, plot_file: Path | None, rows: Sequence[Row]) -> None:
    from benchmarks.pareto.table import csv_lines, points_of

    if table_file is not None:
        with table_file.open("w", newline="") as file:
            csv.writer(file).writerows(csv_lines(rows))
    if plot_file is not None:
        from benchmarks.charts import front_chart

        plot_file.write_text(front_chart(points_of(rows)), encoding="utf-8")


def _measure(args: argparse.Namespace, begun: Invocation) -> list[Row]:
    from benchmarks.measuring.closed_loop import Effort
    from benchmarks.measuring.machine import watch
    from benchmarks.measuring.rows import Origin
    from benchmarks.pareto.variants import Choices, export_variants, measure_variants
    from sfda_edge.data.validation import Validation

    choices = Choices(
        args.sizes,
        args.precisions,
        args.argmax,
        backends=args.backends,
        num_threads=args.threads,
    )
    validation = Validation(args.validation, args.validation_labels)
    effort = Effort(min_seconds=args.seconds)
    with tempfile.TemporaryDirectory() as folder:
        variants = export_variants(args.runs or [None], choices, args.work or Path(folder))
        with watch() as watched:
            measured = list(measure_variants(variants, choices, validation, effort))
    rows: list[Row] = []
    for variant, backend, figures in measured:
        origin = Origin(begun, variant.network, variant.size, variant.precision)
        conditions = {
            "run": variant.run,
            "argmax": variant.argmax,
            "threads": args.threads,
            "validation": without_credentials(args.validation),
        }
        rows += origin.rows({backend: figures}, watched.machine, conditions)
    return rows


if __name__ == "__main__":
    sys.exit(main())
