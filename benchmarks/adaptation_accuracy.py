"""One row of the accuracy table: a recipe on a task with a seed, scored at every judgement."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.adaptation_tasks import BenchmarkTask
from sfda_edge.adaptation.loop import Adaptation, adapt, begin
from sfda_edge.adaptation.task import AdaptationTask
from sfda_edge.data import open_images
from sfda_edge.data.target import TargetImages
from sfda_edge.evaluation.evaluate import Predictor, evaluate
from sfda_edge.methods import METHODS, load_method_recipe
from sfda_edge.models.source_model import load_source
from sfda_edge.runs.directory import circumstances
from sfda_edge.runs.progress import progress_bar
from sfda_edge.training.fabric import Precision, open_fabric


class Scorer:
    """mIoU on the task's labelled images, in percent."""

    def __init__(self, task: AdaptationTask, benchmark: BenchmarkTask) -> None:
        self._task = task
        self._images = open_images(benchmark.validation, benchmark.labels_dir)

    def miou(self, model: nn.Module) -> float:
        """Score a model."""
        predictor = Predictor(model, self._task.spec, self._task.device)
        bar = progress_bar("score", len(self._images))
        return round(100 * evaluate(predictor, self._images, progress=bar).scores.miou, 2)


def measure_row(
    benchmark: BenchmarkTask,
    recipe_name: str,
    seed: int,
    overrides: tuple[str, ...] = (),
    device: str = "auto",
    precision: Precision = "fp32",
) -> dict[str, Any]:
    """Adapt, and score source, final and returned model and every judged checkpoint."""
    method_name, recipe = load_method_recipe(recipe_name, None, (*overrides, f"seed={seed}"))
    source = load_source(benchmark.flags)
    images = open_images(benchmark.target)
    target = TargetImages(images, source.spec.input_hw)
    fabric = open_fabric(device, precision)
    with tempfile.TemporaryDirectory() as folder:
        task = AdaptationTask(
            source.model, source.spec, target, fabric, seed, Path(folder), progress_bar
        )
        began_s = time.monotonic()
        run = begin(task, METHODS[method_name][1], recipe)
        prepared_s = time.monotonic() - began_s
        scorer = Scorer(task, benchmark)
        checkpoints, scoring_s = _scored_checkpoints(run, scorer)
        adapt(run, Path(folder), progress_bar(recipe_name, run.method.num_steps))
    seconds = time.monotonic() - began_s - sum(scoring_s)
    before = scorer.miou(run.original)
    return {
        "recipe": recipe_name,
        "seed": seed,
        "overrides": list(overrides),
        "source_miou": before,
        "source_score": round(run.guard.source.score, 4),
        "checkpoints": checkpoints,
        "final_miou": checkpoints[-1]["miou"] if checkpoints else before,
        "returned_miou": scorer.miou(run.method.model),
        "returned_step": run.guard.best_step,
        "stopped": run.stopped,
        "views": [f"{v.size_hw[1]}x{v.size_hw[0]} {v.target_share}" for v in run.views.kept],
        "prepared_s": round(prepared_s, 1),
        "seconds": round(seconds, 1),
        **circumstances(),
    }


def _scored_checkpoints(run: Adaptation, scorer: Scorer) -> tuple[list[dict], list[float]]:
    """Let every judgement be followed by a score with labels, which the run never sees."""
    checkpoints: list[dict[str, Any]] = []
    seconds: list[float] = []
    judge = run.guard.judge

    def judge_and_score(model: nn.Module):
        verdict = judge(model)
        began_s = time.monotonic()
        miou = scorer.miou(model)
        seconds.append(time.monotonic() - began_s)
        checkpoints.append({"step": run.next_step, "score": round(verdict.score, 4), "miou": miou})
        return verdict

    run.guard.judge = judge_and_score  # type: ignore[method-assign]
    return checkpoints, seconds
