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

from benchmarks.measuring.arguments import add_rows_file, several
from benchmarks.measuring.machine import watch
from benchmarks.measuring.program import keep_and_print
from benchmarks.measuring.rows import Invocation, Origin, Row, invocation
from benchmarks.measuring.table import Table, number, table_of
from runtime.arguments import positive, size_hw
from runtime.output import start_output
from sfda_edge.errors import RunError

_FIGURES = ("images", "decoded_to_check", "decoded_in_steps", "step_ms")


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data_parallel",
        description="Measure what each process reads, and time per step.",
    )
    parser.add_argument(
        "--processes", type=several(positive), default="1,2,4", help="(default: %(default)s)"
    )
    parser.add_argument("--method", default="multiview", help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=positive, default=8, help="over all processes (8)")
    parser.add_argument("--steps", type=positive, default=20, help="timed steps (20)")
    parser.add_argument("--images", default="streetsynth:target", help="(default: %(default)s)")
    parser.add_argument("--size", type=size_hw, metavar="WxH", help="input size (the model's own)")
    parser.add_argument("--no-cache", action="store_true", help="decode every image each time")
    add_rows_file(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    start_output()
    args = build_parser().parse_args(arguments)
    begun = invocation("benchmarks.data_parallel", arguments)
    return keep_and_print(lambda: _measure(args, begun), table, args.out)


def _measure(args: argparse.Namespace, begun: Invocation) -> list[Row]:
    from sfda_edge.methods import load_method_recipe

    load_method_recipe(None, args.method, ())  # one that is unknown is said before the work
    with watch() as watched:
        adapted = [_adapted_by(args, count) for count in args.processes]
    network, (height, width) = adapted[0]["network"], adapted[0]["size_hw"]
    origin = Origin(begun, network, f"{width}x{height}", "fp32")
    figures = {}
    for count, found in zip(args.processes, adapted, strict=True):
        speed_up = round(adapted[0]["step_ms"] / found["step_ms"], 3)
        figures[_way(count)] = {name: found[name] for name in _FIGURES} | {"speed_up": speed_up}
    conditions: dict[str, str | int | float] = {
        "method": args.method,
        "batch_size": args.batch_size,
        "steps": args.steps,
        "threads": 1,
        "images": args.images,
        "kept": "no image" if args.no_cache else "images",
    }
    return origin.rows(figures, watched.machine, conditions)


def _way(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _adapted_by(args: argparse.Namespace, num_processes: int) -> dict[str, Any]:
    """The processes' own records, put together."""
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
        done = subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL)
        if done.returncode:
            raise RunError(f"{_way(num_processes)} failed: exit code {done.returncode}")
        records = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    return {
        "network": records[0]["network"],
        "images": records[0]["images"],
        "size_hw": records[0]["size_hw"],
        "decoded_to_check": [record["decoded_to_check"] for record in records],
        "decoded_in_steps": [record["decoded_in_steps"] for record in records],
        "step_ms": max(record["step_ms"] for record in records),
    }


def table(rows: Sequence[Row]) -> Table:
    """All rows are of one run."""
    first = rows[0]
    conditions = first.conditions
    title = f"{first.network}, {first.size}, {conditions['method']}, global batch "
    title += f"{conditions['batch_size']}, {conditions['images']}, {conditions['kept']} kept"
    columns = ["", "images decoded by each, to check", f"in {conditions['steps']} steps"]
    columns += ["step p50, ms", "times the first's speed"]
    return table_of(rows, title, columns, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    checked, trained = (
        ", ".join(map(str, row.figures[key])) for key in ("decoded_to_check", "decoded_in_steps")
    )
    return [
        row.way,
        f"{checked} of {row.figures['images']}",
        trained,
        number(row.figures, "step_ms", 0),
        number(row.figures, "speed_up", 2),
    ]


if __name__ == "__main__":
    sys.exit(main())
