"""python -m benchmarks.adaptation: how much every method gains, and what its steps cost.

``accuracy`` adapts and scores recipe by recipe and seed by seed, and adds a row to its file after
each: begun again, it goes on where it was. ``speed`` times the steps of all recipes in turn with a
plain supervised step. ``table`` prints what a file holds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.adaptation.table import accuracy_table
from benchmarks.measuring.machine import machine_line, machine_record
from benchmarks.records import output_file, write_record
from runtime.arguments import positive
from runtime.glibc_malloc import keep_freed_memory
from runtime.output import print_error, start_output
from sfda_edge.errors import SfdaEdgeError

RECIPES = "bn,tent,maxsquare,selftrain,sfda,sfda-no-patches,sfda-no-generator,multiview"
ACCURACY_FILE = Path("benchmarks/results/adaptation-accuracy.json")
SPEED_FILE = Path("benchmarks/results/adaptation-speed.json")


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.adaptation", description="Measure the adaptation methods."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    accuracy = commands.add_parser("accuracy", help="adapt and score, row by row")
    accuracy.add_argument("--seeds", default="0,1,2", help="(default: %(default)s)")
    accuracy.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides"
    )
    accuracy.add_argument("--out", type=output_file, default=str(ACCURACY_FILE), metavar="FILE")
    accuracy.set_defaults(run=_accuracy)
    speed = commands.add_parser("speed", help="time the steps")
    speed.add_argument("--batch-size", type=positive, default=8)
    speed.add_argument("--rounds", type=positive, default=3)
    speed.add_argument("--steps", type=positive, default=3, help="of a turn (default: %(default)s)")
    speed.add_argument("--out", type=output_file, default=str(SPEED_FILE), metavar="FILE")
    speed.set_defaults(run=_speed)
    for command in (accuracy, speed):
        command.add_argument("--tasks", default="A", help="A to F, A-out, clip … (%(default)s)")
        command.add_argument("--recipes", default=RECIPES, help="(default: %(default)s)")
        command.add_argument("--data", type=Path, metavar="DIR", help="CamVid and the weights")
        command.add_argument(
            "--work", type=Path, default=Path("work"), metavar="DIR", help="rendered images"
        )
        command.add_argument("--device", default="auto")
        command.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    table = commands.add_parser("table", help="print what an accuracy file holds")
    table.add_argument("file", type=Path, nargs="?", default=ACCURACY_FILE)
    table.set_defaults(run=lambda args: print(accuracy_table(_read(args.file))))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    start_output()
    args = build_parser().parse_args(arguments)
    keep_freed_memory()
    try:
        args.run(args)
    except SfdaEdgeError as error:
        print_error(error)
        return 2
    return 0


def _accuracy(args: argparse.Namespace) -> None:
    from benchmarks.adaptation.accuracy import measure_row
    from benchmarks.adaptation.tasks import benchmark_tasks, require_task

    record = _read(args.out)
    tasks = benchmark_tasks(args.data, args.work)
    overrides = tuple(args.overrides)
    for name in args.tasks.split(","):
        for seed in (int(text) for text in args.seeds.split(",")):
            for recipe in args.recipes.split(","):
                key = [name, recipe, seed, list(overrides)]
                if key in [_key(row) for row in record["rows"]]:
                    continue
                benchmark = require_task(tasks, name)
                row = measure_row(
                    benchmark,
                    recipe,
                    seed,
                    overrides=overrides,
                    device=args.device,
                    precision=args.precision,
                )
                record["rows"].append({"task": name, **row})
                record["machine"] = machine_record()
                write_record(args.out, record)
                print(_row_text(record["rows"][-1]), flush=True)
    print(accuracy_table(record))


def _key(row: dict[str, Any]) -> list[Any]:
    return [row["task"], row["recipe"], row["seed"], row["overrides"]]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {"rows": []}


def _row_text(row: dict[str, Any]) -> str:
    return (
        f"{row['task']} {row['recipe']:<18} seed {row['seed']}: source {row['source_miou']:.1f}, "
        f"final {row['final_miou']:.1f}, returned {row['returned_miou']:.1f} "
        f"(step {row['returned_step']}), {row['seconds']:.0f} s {row['stopped']}"
    )


def _speed(args: argparse.Namespace) -> None:
    from benchmarks.adaptation.speed import measure_speed
    from benchmarks.adaptation.tasks import benchmark_tasks, require_task

    benchmark = require_task(benchmark_tasks(args.data, args.work), args.tasks)
    recipes = tuple(name for name in args.recipes.split(",") if name != "bn")  # it takes no steps
    record = measure_speed(
        benchmark,
        recipes,
        batch_size=args.batch_size,
        rounds=args.rounds,
        steps=args.steps,
        device=args.device,
        precision=args.precision,
    )
    record = {"task": args.tasks, **record, "machine": machine_record()}
    write_record(args.out, record)
    print(speed_table(record))


def speed_table(record: dict[str, Any]) -> str:
    """The record for a terminal."""
    lines = [
        f"task {record['task']}, batch {record['batch_size']}, {record['precision']}:",
        f"{'':<20}{'steps/s':>9}{'p50 ms':>9}{'ratio':>8}   data / forward / other",
    ]
    for name, row in record["rows"].items():
        shares = " / ".join(
            f"{100 * share:.1f} %" for share in row.get("share_of_time", {}).values()
        )
        lines.append(
            f"{name:<20}{row['per_second']:>9.2f}{row['p50_ms']:>9.0f}"
            f"{row['of_supervised']:>8.2f}   {shares}"
        )
    return "\n".join([*lines, machine_line(record["machine"])])


if __name__ == "__main__":
    sys.exit(main())
