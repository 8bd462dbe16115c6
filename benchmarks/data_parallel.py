"""python -m benchmarks.data_parallel: what each process reads, and time per step, at 1, 2 and 4.

The packaged model adapts to the packaged images with the same global batch and one thread for each
process. Processes are started by ``torch.distributed.run`` on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring.machine import machine_line, machine_record
from benchmarks.records import output_file, write_record
from runtime.arguments import positive, size_hw
from runtime.output import start_output


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data_parallel",
        description="Measure what each process reads, and time per step.",
    )
    parser.add_argument("--processes", default="1,2,4", help="(default: %(default)s)")
    parser.add_argument("--method", default="multiview", help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=positive, default=8, help="over all processes (8)")
    parser.add_argument("--steps", type=positive, default=20, help="timed steps (20)")
    parser.add_argument("--images", default="streetsynth:target", help="(default: %(default)s)")
    parser.add_argument("--size", type=size_hw, metavar="WxH", help="input size (the model's own)")
    parser.add_argument("--no-cache", action="store_true", help="decode every image each time")
    parser.add_argument("--out", type=output_file, metavar="FILE", help="write the record as JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    start_output()
    args = build_parser().parse_args(arguments)
    rows = [_measure(args, int(count)) for count in args.processes.split(",")]
    record = {
        "method": args.method,
        "batch_size": args.batch_size,
        "steps": args.steps,
        "images": args.images,
        "size_hw": rows[0]["size_hw"],
        "cache": not args.no_cache,
        "rows": rows,
        "machine": machine_record(),
    }
    if args.out is not None:
        write_record(args.out, record)
    print(table(record))
    return 0


def _measure(args: argparse.Namespace, num_processes: int) -> dict[str, Any]:
    """One row: the processes' own records, put together."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc_per_node={num_processes}", "-m", "benchmarks.data_parallel_process"]
        settings = {
            "folder": folder,
            "method": args.method,
            "batch_size": args.batch_size,
            "steps": args.steps,
            "images": args.images,
            "size_hw": args.size,
            "memory_bytes": 0 if args.no_cache else None,
        }
        command.append(json.dumps(settings))
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        records = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    return {
        "processes": num_processes,
        "images": records[0]["images"],
        "size_hw": records[0]["size_hw"],
        "decoded_to_check": [record["decoded_to_check"] for record in records],
        "decoded_in_steps": [record["decoded_in_steps"] for record in records],
        "step_ms": max(record["step_ms"] for record in records),
    }


def table(record: dict[str, Any]) -> str:
    """The record in Markdown."""
    first = record["rows"][0]["step_ms"]
    lines = [
        f"`{record['method']}`, global batch {record['batch_size']}, {record['images']}, "
        f"{'images kept' if record['cache'] else 'no image kept'}",
        "",
        "| processes | images decoded by each, to check | in the steps | step p50 | speed-up |",
        "|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        checked, trained = (
            ", ".join(map(str, row[key])) for key in ("decoded_to_check", "decoded_in_steps")
        )
        lines.append(
            f"| {row['processes']} | {checked} of {row['images']} | {trained} "
            f"| {row['step_ms']:.0f} ms | {first / row['step_ms']:.2f} x |"
        )
    return "\n".join([*lines, "", machine_line(record["machine"])])


if __name__ == "__main__":
    sys.exit(main())
