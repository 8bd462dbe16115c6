"""Steps a second of every method against a plain supervised step, and where the time goes."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional

from benchmarks.adaptation.tasks import BenchmarkTask
from benchmarks.measuring.closed_loop import Effort, measure_in_turn
from sfda_edge.adaptation.begin import begin
from sfda_edge.adaptation.loop import Adaptation
from sfda_edge.data.images import ImageSet
from sfda_edge.data.target import TargetImages
from sfda_edge.methods import METHODS, load_method_recipe
from sfda_edge.models.source_model import load_source
from sfda_edge.runs.fabric import Precision, open_fabric
from sfda_edge.runs.progress import progress_bar
from sfda_edge.task import AdaptationTask

NUM_IMAGES = 24


def measure_speed(
    benchmark: BenchmarkTask,
    recipes: tuple[str, ...],
    *,
    batch_size: int,
    rounds: int,
    steps: int,
    device: str = "auto",
    precision: Precision = "fp32",
) -> dict[str, Any]:
    """Time steps of all recipes and of plain supervision in turn, at the same batch size."""
    fabric = open_fabric(device, precision)
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: _begun(benchmark, name, batch_size, work_dir=Path(folder) / name, fabric=fabric)
            for name in recipes
        }
        calls: dict[str, Callable[[], object]] = {
            "supervised": _supervised(next(iter(runs.values())).task, batch_size)
        }
        calls |= {name: run.step for name, run in runs.items()}
        effort = Effort(rounds * steps, min_seconds=0, per_turn=steps)
        measured = measure_in_turn(calls, effort, "supervised")
        rows: dict[str, dict[str, Any]] = {}
        for name, one in measured.items():
            rows[name] = one.record() | {"of_supervised": round(1 / one.ratio.median, 3)}
        for name, run in runs.items():
            rows[name]["share_of_time"] = _shares(run, steps)
    return {"batch_size": batch_size, "device": device, "precision": precision, "rows": rows}


def _begun(
    benchmark: BenchmarkTask,
    recipe_name: str,
    batch_size: int,
    *,
    work_dir: Path,
    fabric: Fabric,
) -> Adaptation:
    changes = (f"batch_size={batch_size}", "steps=100000")
    method_name, recipe = load_method_recipe(recipe_name, None, changes)
    source = load_source(benchmark.flags)
    images = benchmark.target_images()
    few = ImageSet(images.title, images.samples[:NUM_IMAGES], images.label_space)
    target = TargetImages(few, source.spec.input_hw)
    task = AdaptationTask(
        source.network,
        source.spec,
        target,
        fabric=fabric,
        seed=0,
        work_dir=work_dir,
        bars=progress_bar,
    )
    return begin(task, METHODS[method_name][1], recipe)


def _supervised(task: AdaptationTask, batch_size: int) -> Callable[[], object]:
    """Forward, cross-entropy, backward, AdamW: what any training of this network costs."""
    model = copy.deepcopy(task.model).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5)
    images = task.target.images([index % len(task.target) for index in range(batch_size)])
    height, width = task.spec.input_hw
    labels = torch.randint(
        task.spec.label_space.num_classes, (batch_size, height, width), device=task.device
    )

    def step() -> float:
        loss = functional.cross_entropy(task.logits(model, task.inputs(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _shares(run: Adaptation, steps: int) -> dict[str, float]:
    """Share of the time of a few steps: waiting for data, forward passes, everything else."""
    run.data_wait_s = 0.0
    with _ForwardClock(run) as clock:
        began_s = time.perf_counter()
        for _ in range(steps):
            run.step()
        total_s = time.perf_counter() - began_s
    shares = {"data": run.data_wait_s / total_s, "forward": clock.seconds / total_s}
    shares["other"] = 1 - sum(shares.values())
    return {name: round(share, 4) for name, share in shares.items()}


class _ForwardClock:
    """Adds up the time in forward passes of the method's networks."""

    def __init__(self, run: Adaptation) -> None:
        self._run, self._began_s, self.seconds = run, list[float](), 0.0

    def __enter__(self) -> _ForwardClock:
        values = vars(self._run.method).values()
        self._hooks = []
        for network in {value for value in values if isinstance(value, nn.Module)}:
            self._hooks.append(network.register_forward_pre_hook(self._begin))
            self._hooks.append(network.register_forward_hook(self._end))
        return self

    def __exit__(self, *_error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _begin(self, *_arguments: object) -> None:
        self._began_s.append(self._now_s())

    def _end(self, *_arguments: object) -> None:
        self.seconds += self._now_s() - self._began_s.pop()

    def _now_s(self) -> float:
        if self._run.task.device.type == "cuda":
            torch.cuda.synchronize(self._run.task.device)
        return time.perf_counter()
