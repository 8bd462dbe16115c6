"""python -m benchmarks.adaptation: how much every method gains, and what its steps cost.

``accuracy`` adapts and scores recipe by recipe and seed by seed, and adds a row to its file after
each: begun again, it goes on where it was. ``speed`` times the steps of all recipes in turn with a
plain supervised step. ``table`` prints what a file holds.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.adaptation.table import accuracy_table, read_accuracy, settings_of
from benchmarks.measuring.arguments import several
from benchmarks.measuring.machine import machine_line, machine_record
from benchmarks.measuring.program import exit_code_of
from benchmarks.measuring.rows import invocation
from benchmarks.records import output_file, write_record
from runtime.arguments import natural, positive
from runtime.glibc_malloc import keep_freed_memory
from runtime.output import print_result, start_output
from sfda_edge.errors import DataError

if TYPE_CHECKING:
    from benchmarks.adaptation.tasks import BenchmarkTask

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
    accuracy.add_argument(
        "--seeds", type=several(natural), default="0,1,2", help="(default: %(default)s)"
    )
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
        command.add_argument(
            "--tasks", type=several(str), default="A", help="A to F, A-out, clip … (%(default)s)"
        )
        command.add_argument(
            "--recipes", type=several(str), default=RECIPES, help="(default: %(default)s)"
        )
        command.add_argument("--data", type=Path, metavar="DIR", help="CamVid and the weights")
        command.add_argument(
            "--work", type=Path, default=Path("work"), metavar="DIR", help="rendered images"
        )
        command.add_argument("--device", default="auto")
        command.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    table = commands.add_parser("table", help="print what an accuracy file holds")
    table.add_argument("file", type=Path, nargs="?", default=ACCURACY_FILE)
    table.set_defaults(run=lambda args: print_result(accuracy_table(read_accuracy(args.file))))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    start_output()
    args = build_parser().parse_args(arguments)
    args.begun = invocation("benchmarks.adaptation", arguments)
    keep_freed_memory()
    return exit_code_of(lambda: args.run(args))


def _accuracy(args: argparse.Namespace) -> None:
    from benchmarks.adaptation.accuracy import measure_row
    from benchmarks.adaptation.tasks import benchmark_tasks, require_task
    from sfda_edge.runs.fabric import usable_device

    record = read_accuracy(args.out) if args.out.exists() else {"rows": []}
    tasks = benchmark_tasks(args.data, args.work)
    device = usable_device(args.device, args.precision).type
    for name, seed, recipe in itertools.product(args.tasks, args.seeds, args.recipes):
        benchmark = require_task(tasks, name)
        asked = (name, recipe, seed, tuple(args.overrides), args.precision, device)
        earlier = next((row for row in record["rows"] if settings_of(row) == asked), None)
        if earlier is not None:
            _require_same_inputs(earlier, benchmark, args.out)
            continue
        row = measure_row(
            benchmark,
            recipe,
            seed,
            overrides=tuple(args.overrides),
            device=args.device,
            precision=args.precision,
        )
        record["rows"].append({"task": name, **row, "command": args.begun.command})
        record["machine"] = machine_record()
        write_record(args.out, record)
        print_result(_row_text(record["rows"][-1]))
    print_result(accuracy_table(record))


def _require_same_inputs(row: dict[str, Any], benchmark: BenchmarkTask, path: Path) -> None:
    """A row that is there already must be of the same weights and images.

    Raises:
        DataError: it is not.
    """
    from benchmarks.adaptation.accuracy import inputs_of

    if "target_sha256" not in row:  # older rows have no hashes
        return
    for name, found in inputs_of(benchmark).items():
        if row[name] != found:
            raise DataError(
                f"{path} has a row of {row['task']}, {row['recipe']}, seed {row['seed']} with "
                f"another {name}: {row[name][:8]}…, here {found[:8]}…; name another --out"
            )


def _row_text(row: dict[str, Any]) -> str:
    return (
        f"{row['task']} {row['recipe']:<18} seed {row['seed']}: source {row['source_miou']:.1f}, "
        f"final {row['final_miou']:.1f}, returned {row['returned_miou']:.1f} "
        f"(step {row['returned_step']}), {row['seconds']:.0f} s {row['stopped']}"
    )


def _speed(args: argparse.Namespace) -> None:
    from benchmarks.adaptation.speed import measure_speed
    from benchmarks.adaptation.tasks import benchmark_tasks, require_task

    if len(args.tasks) > 1:
        raise DataError(f"speed is measured on one task, got {', '.join(args.tasks)}")
    benchmark = require_task(benchmark_tasks(args.data, args.work), args.tasks[0])
    recipes = tuple(name for name in args.recipes if name != "bn")
    if not recipes:
        raise DataError("--recipes names bn alone, which takes no steps: add another")
    record = measure_speed(
        benchmark,
        recipes,
        batch_size=args.batch_size,
        rounds=args.rounds,
        steps=args.steps,
        device=args.device,
        precision=args.precision,
    )
    origin = {"command": args.begun.command, "commit": args.begun.commit}
    record = {"task": args.tasks[0], **record, **origin, "machine": machine_record()}
    write_record(args.out, record)
    print_result(speed_table(record))


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
