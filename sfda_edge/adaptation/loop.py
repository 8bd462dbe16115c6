"""Adapt a model to target images: the one loop for all methods."""

from __future__ import annotations

import copy
import json
import logging
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from sfda_edge.adaptation.task import AdaptationTask
from sfda_edge.batchnorm.statistics import BatchNormHealth, batchnorm_layers, check_health
from sfda_edge.data.loading import Progress, silent
from sfda_edge.data.target import TargetBatch
from sfda_edge.errors import CollapseError, RecipeError, RunError
from sfda_edge.methods.base import AdaptationMethod
from sfda_edge.models.checkpoint import save_state
from sfda_edge.runs.metrics import open_metrics
from sfda_edge.selection.checkpoint_selection import Guard
from sfda_edge.selection.view_search import Views, find_views
from sfda_edge.training.distributed import averaged, num_processes, rank

# How much a kill may cost; checkpoints are also written whenever the model is judged.
CHECKPOINT_EVERY_S = 60.0
# A run is judged so often, but a short one not at every step, and a long one before it is late.
JUDGEMENTS, LEAST_STEPS_BETWEEN, MOST_STEPS_BETWEEN = 8, 10, 250
# What a later checkpoint may hold for each byte of the first: weights and Adam's two moments.
_LARGEST_GROWTH = 3
HEALTH_IMAGES, HEALTH_BATCH = 16, 4
logger = logging.getLogger(__name__)


@dataclass
class Adaptation:
    """An adaptation run and the step it has reached.

    Attributes:
        task: the target, the device.
        method: adapts the task's model.
        original: a copy of the model as it came; what "before" means to people.
        source: a copy of the model before anything was learnt, its BatchNorm repaired.
        health: of the source's BatchNorm statistics, which were re-estimated if they were
            unusable; None for a network without.
        views: in which ways the source sees the target well.
        guard: keeps the best model.
        stopped: why the run ended early; empty when it did not.
        data_wait_s: how long steps waited for images.
    """

    task: AdaptationTask
    method: AdaptationMethod
    original: nn.Module
    source: nn.Module
    health: BatchNormHealth | None
    views: Views
    guard: Guard
    next_step: int = 0
    stopped: str = ""
    data_wait_s: float = 0.0
    _coming: dict[int, TargetBatch] = field(default_factory=dict)

    def step(self) -> dict[str, Any]:
        """One step on the next batch; returns what to log.

        All randomness comes from the seed and the step's number, so a resumed run is the same run.
        A loss that is no longer a number ends the run, and is not logged: JSON has no word for it.
        """
        step = self.next_step
        images = self._images(step)
        torch.manual_seed(self.task.seed * 1_000_003 + step)
        try:
            found = averaged(
                self.method.step(images.to(self.task.device), self._indices(step), step)
            )
        except CollapseError as error:  # of sums over all processes, so that none waits for another
            self.stopped, found = str(error), {}
        self.next_step += 1
        numbers = {name: value for name, value in found.items() if math.isfinite(value)}
        broken = [name for name in found if name not in numbers]
        if broken:
            self.stopped = f"{broken[0]} is {found[broken[0]]} at step {self.next_step}"
        return {"step": self.next_step, **numbers}

    def _indices(self, step: int) -> list[int]:
        return batch_indices(
            len(self.task.target), self.method.batch_size, self.task.seed, step
        ).tolist()

    def _images(self, step: int) -> Tensor:
        """This step's images, which the last step ordered; orders the next step's."""
        batch = self._coming.pop(step, None) or self.task.target.ahead(self._indices(step))
        if step + 1 < self.method.num_steps:
            self._coming = {step + 1: self.task.target.ahead(self._indices(step + 1))}
        began_s = time.perf_counter()
        images = batch.images()
        self.data_wait_s += time.perf_counter() - began_s
        return images

    def judge(self) -> dict[str, Any]:
        """Let the guard look at the model as it is; returns what to log.

        A model beyond repair ends the run.
        """
        pupil = self.method.taught_by_views and self.next_step > 0
        verdict = self.guard.consider(self.method.model, self.next_step, pupil)
        self.stopped = self.guard.how_collapsed(verdict)
        confident = math.isfinite(verdict.confidence)  # JSON has no other numbers
        return {
            "score": verdict.score,
            "accuracy": verdict.accuracy,
            "confidence": verdict.confidence if confident else None,
            "class_shares": [round(share, 5) for share in verdict.class_shares],
        }

    def save(self, path: Path) -> None:
        """Write everything that a resumed run needs."""
        state = {
            "model": self.method.model.state_dict(),
            "method": self.method.state(),
            "guard": self.guard.state(),
            "precision": self.task.fabric.strategy.precision.state_dict(),
            "next_step": self.next_step,
        }
        save_state(path, state)

    def resume(self, path: Path) -> None:
        """Continue from ``save``.

        Raises:
            RunError: there is no checkpoint, or it is of another run.
        """
        if not path.is_file():
            raise RunError(f"nothing to resume: {path} does not exist")
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            self.method.model.load_state_dict(state["model"])
            self.method.restore(state["method"])
            self.guard.restore(state["guard"])
            self.task.fabric.strategy.precision.load_state_dict(state["precision"])
            self.next_step = state["next_step"]
        except (RuntimeError, KeyError, ValueError, TypeError, UnpicklingError) as error:
            raise RunError(
                f"{path} is not a checkpoint of this run, or of an older version: {error}"
            ) from None


def begin(task: AdaptationTask, method_type: type[Any], recipe: Any) -> Adaptation:
    """Everything that comes before the first step.

    The BatchNorm statistics are looked at and repaired, the good views found, the guard posted, and
    the method prepared.
    """
    require_enough_images(task)
    original = copy.deepcopy(task.model)
    health = ensure_healthy_batchnorm(task)
    method = method_type(task, recipe)  # after the repair: methods copy the source model
    require_shareable(method)
    source = copy.deepcopy(task.model)
    views = find_views(task)
    logger.info("views of the target: %s", views.text())
    guard = Guard(task, views)
    method.prepare(views)
    return Adaptation(task, method, original, source, health, views, guard)


def require_shareable(method: AdaptationMethod) -> None:
    """See that every process has its part of a batch.

    Raises:
        RecipeError: the batch cannot be divided.
    """
    if method.batch_size % num_processes():
        raise RecipeError(
            f"batch_size {method.batch_size} cannot be shared by {num_processes()} "
            "processes; make it a multiple"
        )


def require_enough_images(task: AdaptationTask) -> None:
    """See that there is something to learn from.

    Raises:
        RecipeError: there are too few images.
    """
    if len(task.target) < max(2, num_processes()):
        raise RecipeError(
            f"{len(task.target)} target images are too few; at least 2, and one for each process"
        )


def ensure_healthy_batchnorm(task: AdaptationTask) -> BatchNormHealth | None:
    """Repair statistics that make nonsense of the target, loudly."""
    if not batchnorm_layers(task.model):
        return None
    batches = list(task.target_batches(HEALTH_IMAGES, HEALTH_BATCH))
    health, statistics = check_health(task.model, batches, task.probabilities)
    # All processes repair, or none: on two devices the last digits of the figures may differ.
    if averaged({"usable": float(health.usable)})["usable"] < 1:
        health = replace(health, usable=False)
    if not health.usable:
        logger.warning(
            "the checkpoint's BatchNorm statistics are unusable: with them the network answers "
            "%.1f effective classes, with each batch's own %.1f; the target's means are %.1f "
            "stored deviations away, its variances %.1f times others. They are re-estimated on the "
            "target images",
            health.classes_stored,
            health.classes_batch,
            health.shift,
            health.variance_factor,
        )
        statistics.mix_into(task.model, 1.0)
    return health


def batch_indices(num_images: int, batch_size: int, seed: int, step: int) -> Tensor:
    """Which images step ``step`` sees: every epoch is another permutation, none is left out.

    A batch that runs over an epoch's end goes on in the next. The answer depends on the arguments
    alone, so that a resumed run sees what an uninterrupted one sees.
    """
    positions = torch.arange(step * batch_size, (step + 1) * batch_size)
    epochs, offsets = positions // num_images, positions % num_images
    orders = {
        int(epoch): torch.randperm(
            num_images, generator=torch.Generator().manual_seed(seed * 1_000_003 + int(epoch))
        )
        for epoch in epochs.unique()
    }
    return torch.stack(
        [orders[int(epoch)][offset] for epoch, offset in zip(epochs, offsets, strict=True)]
    )


def adapt(run: Adaptation, out_dir: Path, progress: Progress = silent) -> None:
    """Run the remaining steps; then ``run.method.model`` is the best model that was met.

    Args:
        run: fresh, or resumed; its method is prepared.
        out_dir: gets ``metrics.jsonl`` and ``checkpoints/``, written by the first process.
        progress: wraps the steps, each a dictionary of what was logged.

    Raises:
        RunError: the folder cannot be written or the disk is full, which the first checkpoint
            finds out before anything is learnt; the last good checkpoint stays.
    """
    with closing(open_metrics(out_dir, run.next_step)) as metrics:
        if run.next_step == 0:  # what preparation alone, such as other statistics, has made of it
            metrics.write(_line({"step": 0, **run.judge()}, run))
            if rank() == 0 and not run.stopped:
                run.save(checkpoint_path(out_dir))
                require_space(checkpoint_path(out_dir), run.method.bytes_to_come())
        for logged in progress(_steps(run, out_dir)):
            metrics.write(_line(logged, run))
    run.guard.give_best(run.method.model)


def _line(logged: dict[str, Any], run: Adaptation) -> str:
    """A line of ``metrics.jsonl``; the last one of a run that was stopped says why."""
    return json.dumps(logged | ({"stopped": run.stopped} if run.stopped else {})) + "\n"


def _steps(run: Adaptation, out_dir: Path) -> Iterator[dict[str, Any]]:
    num_steps = run.method.num_steps
    between = min(max(LEAST_STEPS_BETWEEN, num_steps // JUDGEMENTS), MOST_STEPS_BETWEEN)
    saved_s = time.monotonic()
    while run.next_step < num_steps and not run.stopped:
        logged = run.step()
        if run.next_step == num_steps:
            run.method.finish()
        judged = run.next_step == num_steps or run.next_step % between == 0
        if judged and not run.stopped:
            logged |= run.judge()
        yield logged
        due = judged or time.monotonic() - saved_s > CHECKPOINT_EVERY_S
        if due and run.next_step < num_steps and not run.stopped and rank() == 0:
            run.save(checkpoint_path(out_dir))
            saved_s = time.monotonic()


def require_space(checkpoint: Path, others: int = 0) -> None:
    """See that later checkpoints, which grow and are written beside the last one, will fit.

    Args:
        checkpoint: the first.
        others: bytes that the run will write beside them.

    Raises:
        RunError: the disk has too little left.
    """
    size, free = checkpoint.stat().st_size, shutil.disk_usage(checkpoint.parent).free
    needed = 2 * _LARGEST_GROWTH * size - size + others
    if free < needed:
        raise RunError(
            f"the disk of {checkpoint.parent} has {free / 1e6:.0f} MB left and the run may need "
            f"{needed / 1e6:.0f} MB; make room or choose another --out"
        )


def checkpoint_path(out_dir: Path) -> Path:
    """Where the newest resumable checkpoint of a run is."""
    return out_dir / "checkpoints" / "last.pt"
