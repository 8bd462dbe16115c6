"""What each process of ``benchmarks.data_parallel`` runs; started by ``torch.distributed.run``.

Arguments: folder for the record, method, global batch size, timed steps, images, and 0 for no
image kept in memory.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from benchmarks.timing import time_call
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
    folder, method, batch_size, num_steps, images, *memory = sys.argv[1:]
    fabric = open_fabric("cpu")
    source = load_source(ModelRequest(None))
    target = TargetImages(
        open_images(images),
        source.spec.input_hw,
        memory_bytes=int(memory[0]) if memory else None,
    )
    decoded_to_check = target.num_decoded
    task = AdaptationTask(
        source.network,
        source.spec,
        target,
        fabric=fabric,
        seed=0,
        work_dir=Path(folder) / "work",
        bars=progress_bar,
    )
    changes = (f"batch_size={batch_size}", "steps=100000")
    name, recipe = load_method_recipe(None, method, changes)
    run = begin(task, METHODS[name][1], recipe)
    for _ in range(WARM_UP_STEPS):
        run.step()
    decoded_before = target.num_decoded
    times_ms = [time_call(run.step) for _ in range(int(num_steps))]
    record = {
        "images": len(target),
        "decoded_to_check": decoded_to_check,
        "decoded_in_steps": target.num_decoded - decoded_before,
        "step_ms": statistics.median(times_ms),
    }
    Path(folder, f"{rank():03d}.json").write_text(json.dumps(record))
    leave_group()


if __name__ == "__main__":
    main()
