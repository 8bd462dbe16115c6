"""python -m benchmarks.decoder: what the light network's decoder costs, in ONNX Runtime.

The encoder alone, the encoder with the feature pyramid that we ship, and the encoder with LR-ASPP
(Howard et al., ICCV 2019), the usual light decoder, are exported and timed in turn.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks.measuring.arguments import add_rows_file, add_threads
from benchmarks.measuring.machine import watch
from benchmarks.measuring.program import keep_and_print
from benchmarks.measuring.rows import Invocation, Origin, Row, invocation
from benchmarks.measuring.table import Table, number, ratio_text, table_of
from runtime.arguments import positive, size_hw
from runtime.output import start_output


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decoder", description="Time the light network's decoder."
    )
    parser.add_argument("--rounds", type=positive, default=8, help="of ten calls each, in turn (8)")
    parser.add_argument(
        "--size", type=size_hw, default=(256, 512), metavar="WxH", help="of the input (512x256)"
    )
    add_threads(parser)
    add_rows_file(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    start_output()
    args = build_parser().parse_args(arguments)
    begun = invocation("benchmarks.decoder", arguments)
    return keep_and_print(lambda: _measure(args, begun), table, args.out)


def _measure(args: argparse.Namespace, begun: Invocation) -> list[Row]:
    from benchmarks.light_decoders import measure

    with watch() as watched:
        figures = measure(args.rounds, args.threads, args.size)
    height, width = args.size
    origin = Origin(begun, "EfficientNet-Lite0", f"{width}x{height}", "fp32")
    return origin.rows(figures, watched.machine, {"threads": args.threads})


def table(rows: Sequence[Row]) -> Table:
    """All rows are of one run."""
    first = rows[0]
    title = f"{first.network}, {first.size}, {first.precision}, threads: "
    title += str(first.conditions["threads"])
    columns = ["", "million parameters", "p50, ms", "p99, ms", "time, ratio to the first"]
    cells = [
        [
            row.way,
            number(row.figures, "parameters", 2, 1e-6),
            number(row.figures, "p50_ms", 2),
            number(row.figures, "p99_ms", 2),
            ratio_text(row.figures),
        ]
        for row in rows
    ]
    return table_of(rows, title, columns, cells)


if __name__ == "__main__":
    sys.exit(main())
