"""How fast adaptation trains on a GPU: fp32 and bf16, compiled and not."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring.closed_loop import time_call
from sfda_edge.adaptation.begin import begin
from sfda_edge.adaptation.loop import Adaptation
from sfda_edge.data import open_images
from sfda_edge.data.target import TargetImages
from sfda_edge.methods import METHODS, load_method_recipe
from sfda_edge.models.source_model import ModelRequest, load_source
from sfda_edge.runs.fabric import Precision, open_fabric
from sfda_edge.runs.progress import progress_bar
from sfda_edge.task import AdaptationTask

BATCH_SIZE, WARM_UP_STEPS, MOST_STEPS, MOST_S = 16, 5, 100, 20.0
VARIANTS: tuple[tuple[Precision, bool], ...] = (
    ("fp32", False),
    ("bf16", False),
    ("fp32", True),
    ("bf16", True),
)


def measure_training(
    device: str = "cuda",
    variants: Sequence[tuple[Precision, bool]] = VARIANTS,
    size_hw: tuple[int, int] | None = None,
    end_s: float = math.inf,
) -> Iterator[dict[str, Any]]:
    """A row for each variant, with the reason where it did not run.

    Args:
        device: to train on.
        variants: precision, and whether it is compiled.
        size_hw: input size; None for the packaged model's own.
        end_s: when, on the monotonic clock, no more variant is begun and no more step taken.
    """
    for precision, compiled in variants:
        row: dict[str, Any] = {"precision": precision, "compiled": compiled}
        if device == "cuda" and not torch.cuda.is_available():
            yield {**row, "did_not_run": "torch finds no CUDA GPU"}
            continue
        if time.monotonic() > end_s:
            yield {**row, "did_not_run": "no time was left"}
            continue
        try:
            row |= _measured(device, precision, compiled, size_hw=size_hw, end_s=end_s)
        except Exception as error:  # one variant that fails must not hide the others
            row["did_not_run"] = f"{type(error).__name__}: {error}"
        yield row


def _measured(
    device: str,
    precision: Precision,
    compiled: bool,
    *,
    size_hw: tuple[int, int] | None,
    end_s: float,
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        source = load_source(ModelRequest(size_hw=size_hw))
        task = AdaptationTask(
            source.network,
            source.spec,
            TargetImages(open_images("streetsynth:target"), source.spec.input_hw),
            fabric=open_fabric(device, precision),
            seed=0,
            work_dir=Path(folder),
            bars=progress_bar,
        )
        changes = (f"batch_size={BATCH_SIZE}", "steps=100000")
        name, recipe = load_method_recipe(None, "multiview", changes)
        run = begin(task, METHODS[name][1], recipe)
        if compiled:
            run.method.compile()
        for _ in range(WARM_UP_STEPS):
            run.step()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        times_ms: list[float] = []
        end_s = min(end_s, time.monotonic() + MOST_S)
        while not times_ms or (len(times_ms) < MOST_STEPS and time.monotonic() < end_s):
            times_ms.append(time_call(partial(_step, run, device)))
        return {
            "batch_size": BATCH_SIZE,
            "steps": len(times_ms),
            "step_ms": round(statistics.median(times_ms), 3),
            "images_per_second": round(1000 * BATCH_SIZE / statistics.median(times_ms), 2),
            "peak_memory_mib": torch.cuda.max_memory_allocated() / 2**20
            if device == "cuda"
            else 0.0,
        }


def _step(run: Adaptation, device: str) -> None:
    """One step, and the wait for the GPU, which a step only gives its work."""
    run.step()
    if device == "cuda":
        torch.cuda.synchronize()
