"""What a file of accuracy rows says: a table, mistakes of selection, ranks of its score."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring.machine import machine_line
from sfda_edge.errors import DataError

# Points of mIoU that a refused model may be better than its source before it counts as a mistake.
SMALL_GAIN = 0.5


def read_accuracy(path: Path) -> dict[str, Any]:
    """The record of ``benchmarks.adaptation accuracy``.

    Raises:
        DataError: it is missing, or is none.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        for row in record["rows"]:
            settings_of(row)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no record of benchmarks.adaptation: {error}") from None
    return dict(record)


def settings_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Task, recipe, seed, overrides, precision and device; old rows are of fp32 on the CPU."""
    named = (row[name] for name in ("task", "recipe", "seed"))
    how = row.get("precision", "fp32"), row.get("device", "cpu")
    return (*named, tuple(row["overrides"]), *how)


def accuracy_table(record: dict[str, Any]) -> str:
    """Mean and spread over seeds of every recipe and task, and the rank of the label-free score."""
    lines = [
        "| task | recipe | seeds | source | final | returned | at home: source, final, returned |",
        "|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in record["rows"]:
        _, recipe, _, overrides, *how = settings_of(row)
        name = " ".join([recipe, *overrides, *(how if how != ["fp32", "cpu"] else ())])
        groups.setdefault((row["task"], name), []).append(row)
    for (task, recipe), rows in sorted(groups.items()):
        cells = [_mean_and_spread(rows, f"{which}_miou") for which in ("final", "returned")]
        source = rows[0]["source_miou"]
        cells = [f"{source:.1f}", *cells, _home_cell(rows)]
        lines.append(f"| {task} | {recipe} | {len(rows)} | {' | '.join(cells)} |")
    lines.append(f"\n{mistakes_text(record)}")
    for task in sorted({row["task"] for row in record["rows"]}):
        lines.append(f"\ntask {task}: {ranking_text(record, task)}")
    if "machine" in record:
        lines.append(f"\n{machine_line(record['machine'])}")
    return "\n".join(lines)


def _home_cell(rows: list[dict[str, Any]]) -> str:
    measured = [row for row in rows if "home_source" in row]
    if not measured:
        return "–"
    return ", ".join(
        _mean_and_spread(measured, f"home_{which}") for which in ("source", "final", "returned")
    )


def mistakes_text(record: dict[str, Any]) -> str:
    """What checkpoint selection got wrong: models worse than their source, gains not returned."""
    harm = [r for r in record["rows"] if r["returned_miou"] < r["source_miou"]]
    refused = [r for r in record["rows"] if r["returned_step"] is None]
    lost = [max(0.0, r["final_miou"] - r["source_miou"]) for r in refused]
    large = [gain for gain in lost if gain > SMALL_GAIN]
    mean = statistics.mean(lost) if lost else 0.0
    return (
        f"of {len(record['rows'])} runs, {len(harm)} returned less than the source; "
        f"{len(refused)} returned the source, and {len(large)} of these ended more than "
        f"{SMALL_GAIN} points above it; refused gain, mean: {mean:.2f} points"
    )


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
