"""Adapt a model to target images: the one loop for all methods."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sfda_edge.adaptation.batches import batch_indices, local_indices
from sfda_edge.data.target import TargetBatch
from sfda_edge.errors import CollapseError, RunError
from sfda_edge.methods.base import AdaptationMethod
from sfda_edge.runs.distributed import averaged, rank
from sfda_edge.runs.metrics import open_metrics
from sfda_edge.runs.progress import Progress, silent
from sfda_edge.runs.state import read_state, restoring, save_state
from sfda_edge.selection.checkpoint_selection import CheckpointScore, CheckpointSelection
from sfda_edge.selection.statistics_check import StatisticsCheck
from sfda_edge.selection.view_search import SelectedViews
from sfda_edge.task import AdaptationTask

# How much a kill may cost; checkpoints are also written whenever the model is scored.
CHECKPOINT_EVERY_S = 60.0
# A later checkpoint's size for each byte of the first: weights and Adam's two moments.
_LARGEST_GROWTH = 3
logger = logging.getLogger(__name__)


@dataclass
class Adaptation:
    """An adaptation run and the step that it has reached.

    Attributes:
        task: the target, the device.
        method: adapts the task's model.
        original: a copy of the model as it came, which "before" in reports and scores refers to.
        source: a copy of the model before training, its BatchNorm statistics repaired.
        statistics_check: of the model as it came; None for a network without BatchNorm.
        views: at which the source model is accurate.
        selection: keeps the best checkpoint.
        stopped: why the run ended early; empty when it did not.
        data_wait_s: how long steps waited for images.
    """

    task: AdaptationTask
    method: AdaptationMethod
    original: nn.Module
    source: nn.Module
    statistics_check: StatisticsCheck | None
    views: SelectedViews
    selection: CheckpointSelection
    next_step: int = 0
    stopped: str = ""
    data_wait_s: float = 0.0
    _coming: dict[int, TargetBatch] = field(default_factory=dict)

    def step(self) -> dict[str, Any]:
        """One step on the next batch; returns what to log.

        All randomness comes from the seed and the step, so a resumed run is the same run. A loss
        that is no longer finite ends the run, and is not logged: JSON has no such number.
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
        """The images of a step that this process reads."""
        task, method = self.task, self.method
        batch = batch_indices(len(task.target), method.batch_size, seed=task.seed, step=step)
        return batch if method.whole_batches else local_indices(batch)

    def _images(self, step: int) -> Tensor:
        """This step's images, which the last step ordered; orders the next step's."""
        batch = self._coming.pop(step, None) or self.task.target.ahead(self._indices(step))
        if step + 1 < self.method.num_steps:
            self._coming = {step + 1: self.task.target.ahead(self._indices(step + 1))}
        began_s = time.perf_counter()
        images = batch.images()
        self.data_wait_s += time.perf_counter() - began_s
        return images

    def score_checkpoint(self) -> CheckpointScore:
        """Score the model as it is, without labels, and keep it if it is the best.

        A collapsed model ends the run.
        """
        student = self.method.trains_on_ensemble and self.next_step > 0
        found = self.selection.consider(self.method.model, self.next_step, student=student)
        self.stopped = self.selection.collapse_reason(found)
        return found

    def save(self, path: Path) -> None:
        """Write everything that a resumed run needs."""
        state = {
            "model": self.method.model.state_dict(),
            "method": self.method.state(),
            "selection": self.selection.state(),
            "precision": self.task.fabric.strategy.precision.state_dict(),
            "next_step": self.next_step,
        }
        save_state(path, state)

    def resume(self, path: Path) -> None:
        """Continue from ``save``.

        Raises:
            RunError: there is no checkpoint, it is damaged, or of another run.
        """
        state = read_state(path)
        with restoring(path):
            self.method.model.load_state_dict(state["model"])
            self.method.restore(state["method"])
            self.selection.restore(state["selection"])
            self.task.fabric.strategy.precision.load_state_dict(state["precision"])
            self.next_step = int(state["next_step"])


# Sees the run and its score whenever a checkpoint was scored.
Observer = Callable[[Adaptation, CheckpointScore], None]


def observe_nothing(run: Adaptation, found: CheckpointScore) -> None:
    """No observer."""


def adapt(
    run: Adaptation,
    out_dir: Path,
    progress: Progress = silent,
    observer: Observer = observe_nothing,
) -> None:
    """Run the remaining steps; then ``run.method.model`` is the best model of the run.

    Args:
        run: fresh, or resumed; its method is prepared.
        out_dir: gets ``metrics.jsonl`` and ``checkpoints/``, written by the first process.
        progress: wraps the steps, each a dictionary of what was logged.
        observer: is called whenever a checkpoint was scored.

    Raises:
        RunError: the folder cannot be written or the disk is full, which the first checkpoint
            finds out before training; the last good checkpoint stays.
    """
    with closing(open_metrics(out_dir, run.next_step)) as metrics:
        if run.next_step == 0:  # what preparation alone, such as other statistics, has changed
            metrics.write(_line({"step": 0, **_scored(run, observer)}, run))
            if rank() == 0 and not run.stopped:
                run.save(checkpoint_path(out_dir))
                require_space(checkpoint_path(out_dir), run.method.bytes_to_come())
        for logged in progress(_steps(run, out_dir, observer)):
            metrics.write(_line(logged, run))
    run.selection.load_best(run.method.model)


def _line(logged: dict[str, Any], run: Adaptation) -> str:
    """A line of ``metrics.jsonl``; the last one of a run that was stopped says why."""
    stopped = {"stopped": run.stopped} if run.stopped else {}
    return json.dumps(logged | stopped, allow_nan=False) + "\n"


def _scored(run: Adaptation, observer: Observer) -> dict[str, Any]:
    """Score the checkpoint; returns what to log."""
    found = run.score_checkpoint()
    observer(run, found)
    finite = math.isfinite(found.confidence)  # JSON has no other numbers
    return {
        "score": found.score,
        "accuracy": found.accuracy,
        "confidence": found.confidence if finite else None,
        "class_shares": [round(share, 5) for share in found.class_shares],
    }


def _steps(run: Adaptation, out_dir: Path, observer: Observer) -> Iterator[dict[str, Any]]:
    num_steps = run.method.num_steps
    between = run.task.selection.steps_between_scorings(num_steps)
    saved_s = time.monotonic()
    while run.next_step < num_steps and not run.stopped:
        logged = run.step()
        if run.next_step == num_steps:
            run.method.finish()
        due = run.next_step == num_steps or run.next_step % between == 0
        if due and not run.stopped:
            logged |= _scored(run, observer)
        yield logged
        due = due or time.monotonic() - saved_s > CHECKPOINT_EVERY_S
        if due and run.next_step < num_steps and not run.stopped and rank() == 0:
            run.save(checkpoint_path(out_dir))
            saved_s = time.monotonic()


def require_space(checkpoint: Path, others: int = 0) -> None:
    """Check that later checkpoints, which grow and are written beside the last one, will fit.

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
