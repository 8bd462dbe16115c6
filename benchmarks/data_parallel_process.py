"""What each process of ``benchmarks.data_parallel`` runs; started by ``torch.distributed.run``.

Its argument is JSON: ``folder`` for the record, ``method``, ``batch_size`` over all processes,
``steps`` to time, ``images``, ``size_hw`` and ``memory_bytes`` for images; null for the defaults.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from benchmarks.measuring.closed_loop import time_call
from benchmarks.measuring.program import exit_code_of
from sfda_edge.adaptation.begin import begin
from sfda_edge.data import open_images
from sfda_edge.data.target import TargetImages
from sfda_edge.methods import METHODS, load_method_recipe
from sfda_edge.models.source_model import ModelRequest, load_source
from sfda_edge.runs.distributed import leave_group, rank
from sfda_edge.runs.fabric import open_fabric
from sfda_edge.runs.progress import progress_bar
from sfda_edge.task import AdaptationTask

WARM_UP_STEPS = 2


def main() -> None:
    """Adapt for a few steps, and write this process's record."""
    settings = json.loads(sys.argv[1])
    folder, size_hw = Path(settings["folder"]), settings["size_hw"]
    fabric = open_fabric("cpu")
    source = load_source(ModelRequest(size_hw=None if size_hw is None else tuple(size_hw)))
    target = TargetImages(
        open_images(settings["images"]),
        source.spec.input_hw,
        memory_bytes=settings["memory_bytes"],
    )
    decoded_to_check = target.num_decoded
    task = AdaptationTask(
        source.network,
        source.spec,
        target,
        fabric=fabric,
        seed=0,
        work_dir=folder / "work",
        bars=progress_bar,
    )
    changes = (f"batch_size={settings['batch_size']}", "steps=100000")
    name, recipe = load_method_recipe(None, settings["method"], changes)
    run = begin(task, METHODS[name][1], recipe)
    for _ in range(WARM_UP_STEPS):
        run.step()
    decoded_before = target.num_decoded
    times_ms = [time_call(run.step) for _ in range(settings["steps"])]
    record = {
        "network": source.spec.architecture,
        "images": len(target),
        "size_hw": source.spec.input_hw,
        "decoded_to_check": decoded_to_check,
        "decoded_in_steps": target.num_decoded - decoded_before,
        "step_ms": statistics.median(times_ms),
    }
    (folder / f"{rank():03d}.json").write_text(json.dumps(record))
    leave_group()


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
