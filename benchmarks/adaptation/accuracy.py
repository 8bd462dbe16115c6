"""One row of the accuracy table: a recipe on a task with a seed, every checkpoint scored."""

from __future__ import annotations

import functools
import tempfile
import time
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from benchmarks.adaptation.tasks import BenchmarkTask
from benchmarks.measuring.rows import commit
from sfda_edge.adaptation.begin import begin
from sfda_edge.adaptation.loop import Adaptation, adapt
from sfda_edge.data import ImageSet, open_images
from sfda_edge.data.target import TargetImages
from sfda_edge.evaluation import Predictor, evaluate
from sfda_edge.methods import METHODS, load_method_recipe
from sfda_edge.models.loaded_model import LoadedModel
from sfda_edge.models.source_model import load_source
from sfda_edge.runs.directory import circumstances
from sfda_edge.runs.fabric import Precision, open_fabric
from sfda_edge.runs.progress import progress_bar
from sfda_edge.selection.checkpoint_selection import CheckpointScore
from sfda_edge.task import AdaptationTask


@functools.cache
def inputs_of(benchmark: BenchmarkTask) -> dict[str, str]:
    """What a row of a task is measured on: hashes of weights and of target images."""
    source = load_source(benchmark.flags)
    return _inputs(source, TargetImages(benchmark.target_images(), source.spec.input_hw))


def _inputs(source: LoadedModel, target: TargetImages) -> dict[str, str]:
    return {"weights_sha256": source.sha256, "target_sha256": target.sha256}


class Scorer:
    """mIoU on labelled images, in percent."""

    def __init__(self, task: AdaptationTask, images: ImageSet) -> None:
        self._task, self._images = task, images

    def miou(self, model: nn.Module) -> float:
        """Score a model."""
        predictor = Predictor(model, self._task.spec, self._task.device)
        bar = progress_bar("score", len(self._images))
        return round(100 * evaluate(predictor, self._images, progress=bar).scores.miou, 2)


class Checkpoints:
    """Scores every checkpoint with labels, which the run never uses.

    Attributes:
        rows: step, label-free score and mIoU of each.
        last: weights of the last one.
        seconds: how long it took.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer, self.rows, self.seconds = scorer, list[dict[str, Any]](), 0.0
        self.last: dict[str, Tensor] = {}

    def __call__(self, run: Adaptation, found: CheckpointScore) -> None:
        """Score the run's model."""
        began_s = time.monotonic()
        miou = self._scorer.miou(run.method.model)
        self.seconds += time.monotonic() - began_s
        score = round(found.score, 4)
        self.rows.append({"step": run.next_step, "score": score, "miou": miou})
        self.last = {name: value.clone() for name, value in run.method.model.state_dict().items()}


def _course(run: Adaptation, checkpoints: Checkpoints) -> dict[str, Any]:
    """What the run did: its views, its checkpoints, and the one that was selected."""
    return {
        "source_score": round(run.selection.source.score, 4),
        "checkpoints": checkpoints.rows,
        "final_miou": checkpoints.rows[-1]["miou"],
        "returned_step": run.selection.best_step,
        "stopped": run.stopped,
        "views": [f"{v.size_hw[1]}x{v.size_hw[0]} {v.target_share}" for v in run.views.kept],
    }


def _home_row(run: Adaptation, home: ImageSet | None, last: dict[str, Tensor]) -> dict[str, float]:
    """Scores on the source domain: of the source, the last checkpoint and what is returned.

    The run's model has the last checkpoint's weights afterwards.
    """
    if home is None:
        return {}
    scorer = Scorer(run.task, home)
    found = {
        "home_source": scorer.miou(run.original),
        "home_returned": scorer.miou(run.method.model),
    }
    run.method.model.load_state_dict(last)
    return {**found, "home_final": scorer.miou(run.method.model)}


def measure_row(
    benchmark: BenchmarkTask,
    recipe_name: str,
    seed: int,
    *,
    overrides: tuple[str, ...] = (),
    device: str = "auto",
    precision: Precision = "fp32",
) -> dict[str, Any]:
    """Adapt, and score source, final and returned model and every scored checkpoint."""
    method_name, recipe = load_method_recipe(recipe_name, None, (*overrides, f"seed={seed}"))
    origin = {**circumstances(), "commit": commit()}  # before hours in which files may change
    source = load_source(benchmark.flags)
    target = TargetImages(benchmark.target_images(), source.spec.input_hw)
    validation = open_images(benchmark.validation, benchmark.labels_dir)  # before hours of work
    home = None
    if benchmark.home is not None:
        home = open_images(benchmark.home, benchmark.home_labels_dir)
    fabric = open_fabric(device, precision)
    with tempfile.TemporaryDirectory() as folder:
        task = AdaptationTask(
            source.network,
            source.spec,
            target,
            fabric=fabric,
            seed=seed,
            work_dir=Path(folder),
            bars=progress_bar,
        )
        began_s = time.monotonic()
        run = begin(task, METHODS[method_name][1], recipe)
        prepared_s = time.monotonic() - began_s
        scorer = Scorer(task, validation)
        checkpoints = Checkpoints(scorer)
        bar = progress_bar(recipe_name, run.method.num_steps)
        adapt(run, Path(folder), bar, observer=checkpoints)
    seconds = time.monotonic() - began_s - checkpoints.seconds
    before, returned = scorer.miou(run.original), scorer.miou(run.method.model)
    return {
        "recipe": recipe_name,
        "seed": seed,
        "overrides": list(overrides),
        "source_miou": before,
        "returned_miou": returned,
        **_course(run, checkpoints),
        "prepared_s": round(prepared_s, 1),
        "seconds": round(seconds, 1),
        **_home_row(run, home, checkpoints.last),
        "precision": precision,
        "device": fabric.device.type,
        **_inputs(source, target),
        **origin,
    }
