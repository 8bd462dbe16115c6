"""python -m benchmarks.precisions RUN …: fp32, fp16 and int8 of adapted models, side by side.

Each run is exported in every precision, through the gate; a row says how large the file is, how far
its labels agree with torch's, what it scores on labelled images, and how long a frame takes in ONNX
Runtime on this machine, all precisions timed in turn. A precision that fails its gate has a row,
too. An export takes minutes to an hour, beside which other work may run; `--time-again` times its
bundles when the machine is idle.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.hardware import machine_line, machine_record
from benchmarks.records import output_file, write_record
from runtime.arguments import natural, positive, size_hw
from runtime.bundle.manifest import PRECISIONS
from runtime.errors import StreamError
from runtime.output import print_error
from sfda_edge.errors import SfdaEdgeError

RESULTS = Path("benchmarks/results/precisions.json")


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.precisions", description="Compare precisions of adapted models."
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="of sfda-edge adapt")
    parser.add_argument(
        "--precisions", default=",".join(PRECISIONS), metavar="NAMES", help="(%(default)s)"
    )
    parser.add_argument("--validation", metavar="IMAGES", help="labelled images to score on")
    parser.add_argument("--size", type=size_hw, metavar="WxH", help="input size (the runs' own)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="of the thresholds",
    )
    parser.add_argument(
        "--validation-labels", type=Path, metavar="DIR", help="of a plain folder of them"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("work"), metavar="DIR", help="bundles (%(default)s)"
    )
    parser.add_argument("--profile", default="cpu", metavar="NAME", help="as of export (cpu)")
    parser.add_argument("--rounds", type=positive, default=5, help="of each bundle, in turn (5)")
    parser.add_argument("--calls", type=positive, default=10, help="of a round (10)")
    parser.add_argument(
        "--threads", type=natural, default=0, help="of one inference (0: automatic)"
    )
    parser.add_argument(
        "--time-again", action="store_true", help="export nothing: new times for --out's rows"
    )
    parser.add_argument(
        "--out",
        type=output_file,
        default=str(RESULTS),
        metavar="FILE",
        help="rows are added (%(default)s)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    args.precisions = args.precisions.split(",")
    if unknown := set(args.precisions) - set(PRECISIONS):
        parser.error(f"unknown precision {min(unknown)}; known: {', '.join(PRECISIONS)}")
    try:
        for run in args.runs:
            from benchmarks.precision_rows import export_row, timed_rows

            for precision in () if args.time_again else args.precisions:
                _add(args.out, [export_row(run, precision, args)])
            _add(args.out, timed_rows(run, args, _read(args.out)["rows"]))
    except (SfdaEdgeError, StreamError) as error:
        print_error(error)
        return 2
    print(text(_read(args.out)))
    return 0


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {"rows": []}
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def _add(path: Path, rows: list[dict[str, Any]]) -> None:
    """New rows take the place of older ones of the same network, size, target and precision."""

    def key(row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(row[name] for name in ("network", "size", "profile", "precision"))

    new = {key(row) for row in rows}
    kept = [row for row in _read(path)["rows"] if key(row) not in new]
    machine = machine_line(machine_record())
    record = {"rows": sorted(kept + [{**row, "machine": machine} for row in rows], key=key)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, record)


def text(record: dict[str, Any]) -> str:
    """The rows for a terminal."""
    titles = (
        f"{'MB':>7}{'labels':>10}{'rounded':>10}{'torch':>7}{'file':>7}{'p50 ms':>8}{'x fp32':>8}"
    )
    lines = [f"{'':<36}{titles}"]
    for row in record["rows"]:
        name = f"{row['network']} {row['size']} {row['precision']}"
        if "failed" in row:
            lines.append(f"{name:<36} {row['failed']}")
            continue
        cells = [
            _cell(row["bytes"] / 1e6, 7, 1),
            _cell(100 * row["label_agreement"], 10, 3),
            _cell(row["rounded_agreement"] and 100 * row["rounded_agreement"], 10, 3),
            _cell(row["miou_torch"], 7, 2),
            _cell(row["miou"], 7, 2),
            _cell(row.get("p50_ms"), 8, 1),
            _cell(row.get("times_fp32"), 8, 2),
        ]
        lines.append(f"{name:<36}{''.join(cells)}")
    return "\n".join([*lines, *sorted({row["machine"] for row in record["rows"]})])


def _cell(value: float | None, width: int, digits: int) -> str:
    return f"{'–':>{width}}" if value is None else f"{value:>{width}.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
