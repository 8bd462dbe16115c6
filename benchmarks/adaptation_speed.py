"""Steps a second of every method against a plain supervised step, and where the time goes."""

from __future__ import annotations

import contextlib
import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.adaptation_tasks import BenchmarkTask
from benchmarks.timing import time_in_turn
from sfda_edge.adaptation.loop import Adaptation, begin
from sfda_edge.adaptation.task import AdaptationTask
from sfda_edge.data import open_images
from sfda_edge.data.images import ImageSet
from sfda_edge.data.target import TargetImages
from sfda_edge.methods import METHODS, load_method_recipe
from sfda_edge.models.source_model import load_source
from sfda_edge.runs.progress import progress_bar
from sfda_edge.training.fabric import Precision, open_fabric

NUM_IMAGES = 24


def measure_speed(
    benchmark: BenchmarkTask,
    recipes: tuple[str, ...],
    batch_size: int,
    rounds: int,
    steps: int,
    device: str = "auto",
    precision: Precision = "fp32",
) -> dict[str, Any]:
    """Time steps of all recipes and of plain supervision in turn, at the same batch size."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: _begun(benchmark, name, batch_size, Path(folder) / name, device, precision)
            for name in recipes
        }
        calls: dict[str, Callable[[], object]] = {
            "supervised": _supervised(next(iter(runs.values())).task, batch_size)
        }
        calls |= {name: run.step for name, run in runs.items()}
        timings = time_in_turn(calls, rounds, steps)
        reference = timings["supervised"].per_second
        rows = {
            name: {**timing.record(), "of_supervised": round(timing.per_second / reference, 3)}
            for name, timing in timings.items()
        }
        for name, run in runs.items():
            rows[name]["share_of_time"] = _shares(run, steps)
    return {"batch_size": batch_size, "device": device, "precision": precision, "rows": rows}


def _begun(
    benchmark: BenchmarkTask,
    recipe_name: str,
    batch_size: int,
    folder: Path,
    device: str,
    precision: Precision,
) -> Adaptation:
    changes = (f"batch_size={batch_size}", "steps=100000")
    method_name, recipe = load_method_recipe(recipe_name, None, changes)
    source = load_source(benchmark.flags)
    images = open_images(benchmark.target)
    few = ImageSet(images.title, images.samples[:NUM_IMAGES], images.label_space)
    target = TargetImages(few, source.spec.input_hw)
    task = AdaptationTask(
        source.model,
        source.spec,
        target,
        open_fabric(device, precision),
        0,
        folder,
        progress_bar,
    )
    return begin(task, METHODS[method_name][1], recipe)


def _supervised(task: AdaptationTask, batch_size: int) -> Callable[[], object]:
    """Forward, cross-entropy, backward, AdamW: what any training of this network costs."""
    model = copy.deepcopy(task.model).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5)
    images = task.target.images(range(batch_size))
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
    """Where the time of a few steps goes: waiting for data, forward, backward, everything else."""
    clock = {"forward": 0.0, "backward": 0.0}
    run.data_wait_s = 0.0
    with _clocked(run, clock):
        began_s = time.perf_counter()
        for _ in range(steps):
            run.step()
        total_s = time.perf_counter() - began_s
    shares = {"data": run.data_wait_s / total_s}
    shares |= {name: seconds / total_s for name, seconds in clock.items()}
    shares["other"] = 1 - sum(shares.values())
    return {name: round(share, 4) for name, share in shares.items()}


@contextlib.contextmanager
def _clocked(run: Adaptation, clock: dict[str, float]) -> Iterator[None]:
    """Add up the time in the method's networks and in backward passes."""
    fabric, backward = run.task.fabric, run.task.fabric.backward

    def clocked_backward(loss: torch.Tensor) -> None:
        began_s = time.perf_counter()
        backward(loss)
        _wait(run)
        clock["backward"] += time.perf_counter() - began_s

    hooks = []
    for network in {value for value in vars(run.method).values() if isinstance(value, nn.Module)}:
        hooks.append(network.register_forward_pre_hook(lambda *_: started.append(_now(run))))
        hooks.append(
            network.register_forward_hook(
                lambda *_: clock.update(forward=clock["forward"] + _now(run) - started.pop())
            )
        )
    started: list[float] = []
    fabric.backward = clocked_backward  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        del fabric.backward
        for hook in hooks:
            hook.remove()


def _now(run: Adaptation) -> float:
    _wait(run)
    return time.perf_counter()


def _wait(run: Adaptation) -> None:
    if run.task.device.type == "cuda":
        torch.cuda.synchronize(run.task.device)
