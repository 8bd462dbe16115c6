"""python -m benchmarks.decoder: what the light network's decoder costs, in ONNX Runtime.

The encoder alone, the encoder with the feature pyramid that we ship, and the encoder with LR-ASPP
(Howard et al., ICCV 2019), the usual light decoder, are exported and timed in turn.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.measuring.machine import machine_line
from benchmarks.records import output_file, write_record
from runtime.arguments import natural, positive


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decoder", description="Time the light network's decoder."
    )
    parser.add_argument("--rounds", type=positive, default=8, help="of ten calls each, in turn (8)")
    parser.add_argument(
        "--threads", type=natural, default=0, help="of one inference (0: automatic)"
    )
    parser.add_argument("--out", type=output_file, metavar="FILE", help="write the record as JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    args = build_parser().parse_args(arguments)
    from benchmarks.light_decoders import measure

    record = measure(args.rounds, args.threads)
    print(text(record))
    if args.out is not None:
        write_record(args.out, record)
    return 0


def text(record: dict[str, Any]) -> str:
    """The record for a terminal."""
    lines = [f"EfficientNet-Lite0, {record['size']}, fp32"]
    for name, row in record["networks"].items():
        lines.append(
            f"{name:<18}{row['parameters'] / 1e6:6.2f} M parameters   p50 {row['p50_ms']:7.2f} ms"
            f"   p99 {row['p99_ms']:7.2f} ms"
        )
    return "\n".join([*lines, machine_line(record["machine"])])


if __name__ == "__main__":
    sys.exit(main())
