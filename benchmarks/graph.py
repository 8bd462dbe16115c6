"""python -m benchmarks.graph: our export against the plain one, in ONNX Runtime, in one run.

Four ways from a uint8 frame to a label map, timed in turn on the same frames:

- ``network + numpy``: torch.onnx.export of the bare network; NumPy normalises, joins classes and
  arg-maxes, as most deployment scripts do;
- ``plain graph``: torch's own export of the whole way, uint8 in and out;
- ``our graph, PReLU as it is``: the same with the pooling written as ours is;
- ``our graph``: as bundles for the CPU are, with PReLU in other operators.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.hardware import machine_line
from benchmarks.records import output_file, write_record
from runtime.arguments import natural, positive
from runtime.errors import StreamError
from runtime.output import print_error, start_output
from sfda_edge.errors import SfdaEdgeError


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.graph", description="Time our export against the plain one."
    )
    parser.add_argument("weights", nargs="?", type=Path, help="a run (default: the packaged model)")
    parser.add_argument("--source", default="streetsynth", help="frames (default: %(default)s)")
    parser.add_argument("--rounds", type=positive, default=8, help="of ten calls each, in turn (8)")
    parser.add_argument(
        "--threads", type=natural, default=0, help="of one inference (0: automatic)"
    )
    parser.add_argument("--out", type=output_file, metavar="FILE", help="write the record as JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    start_output()
    args = build_parser().parse_args(arguments)
    from benchmarks.export_ways import measure

    try:
        record = measure(args)
    except (SfdaEdgeError, StreamError) as error:
        print_error(error)
        return 2
    print(text(record))
    if args.out is not None:
        write_record(args.out, record)
    return 0


def text(record: dict[str, Any]) -> str:
    """The record for a terminal."""
    ours = record["ways"]["our graph"]["p50_ms"]
    titles = f"{'nodes':>6}{'MB':>7}{'p50 ms':>9}{'p99 ms':>9}{'x ours':>8}{'same labels':>13}"
    lines = [record["model"], f"{'':<27}{titles}"]
    for name, row in record["ways"].items():
        lines.append(
            f"{name:<27}{row['nodes']:>6}{row['bytes'] / 1e6:>7.1f}{row['p50_ms']:>9.2f}"
            f"{row['p99_ms']:>9.2f}{row['p50_ms'] / ours:>8.2f}"
            f"{100 * row['agreement_with_ours']:>11.3f} %"
        )
    return "\n".join([*lines, machine_line(record["machine"])])


if __name__ == "__main__":
    sys.exit(main())
