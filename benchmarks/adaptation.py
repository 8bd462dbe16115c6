"""python -m benchmarks.adaptation: how much every method gains, and what its steps cost.

``accuracy`` adapts and scores recipe by recipe and seed by seed, and adds a row to its file after
each: begun again, it goes on where it was. ``speed`` times the steps of all recipes in turn with a
plain supervised step. ``table`` prints what a file holds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.hardware import machine_line, machine_record
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
    from benchmarks.adaptation_accuracy import measure_row
    from benchmarks.adaptation_tasks import benchmark_tasks, require_task

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


def accuracy_table(record: dict[str, Any]) -> str:
    """Mean and spread over seeds of every recipe and task, and the rank of the label-free score."""
    lines = ["| task | recipe | seeds | source | final | returned |", "|---|---|---|---|---|---|"]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in record["rows"]:
        name = " ".join([row["recipe"], *row["overrides"]])
        groups.setdefault((row["task"], name), []).append(row)
    for (task, recipe), rows in sorted(groups.items()):
        cells = [_mean_and_spread(rows, f"{which}_miou") for which in ("final", "returned")]
        source = rows[0]["source_miou"]
        lines.append(f"| {task} | {recipe} | {len(rows)} | {source:.1f} | {' | '.join(cells)} |")
    for task in sorted({row["task"] for row in record["rows"]}):
        lines.append(f"\ntask {task}: {ranking_text(record, task)}")
    if "machine" in record:
        lines.append(f"\n{machine_line(record['machine'])}")
    return "\n".join(lines)


def _mean_and_spread(rows: list[dict[str, Any]], key: str) -> str:
    values = [row[key] for row in rows]
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def ranking_text(record: dict[str, Any], task: str) -> str:
    """Spearman's rank correlation of the label-free score with mIoU: over a task, within a run."""
    rows = [row for row in record["rows"] if row["task"] == task]
    source = {(row["source_score"], row["source_miou"]) for row in rows}
    runs = [[(c["score"], c["miou"]) for c in row["checkpoints"]] for row in rows]
    models = [*source, *(pair for run in runs for pair in run)]
    if len(models) < 3:
        return f"{len(models)} models, too few to rank"
    within = [rank_correlation(run) for run in runs if len(run) >= 3]
    text = f"{len(models)} models, label-free score against mIoU: rank correlation "
    text += f"{rank_correlation(models):.2f}"
    return f"{text}, median within a run {statistics.median(within):.2f}" if within else text


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float:
    """Spearman's, equal values sharing their mean rank; 0 when all of one kind are equal."""
    ranks = [_ranks(np.array(values)) for values in zip(*pairs, strict=True)]
    if any(len(np.unique(column)) == 1 for column in ranks):
        return 0.0
    return float(np.asarray(np.corrcoef(ranks))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    below, equal = (op(values[:, None], values).sum(1) for op in (np.greater, np.equal))
    return below + (equal - 1) / 2


def _speed(args: argparse.Namespace) -> None:
    from benchmarks.adaptation_speed import measure_speed
    from benchmarks.adaptation_tasks import benchmark_tasks, require_task

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
