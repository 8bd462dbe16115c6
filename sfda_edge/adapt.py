"""Adapt a model to target images: the one loop for all methods."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from sfda_edge.data.loading import Progress, silent
from sfda_edge.errors import RunError
from sfda_edge.files import write_atomically
from sfda_edge.inference import Normalise
from sfda_edge.methods import AdaptationMethod
from sfda_edge.metrics_file import open_metrics
from sfda_edge.models import ModelSpec

CHECKPOINT_EVERY = 20


@dataclass
class Adaptation:
    """An adaptation run: its method, whose model is on ``device``, and the step it has reached."""

    method: AdaptationMethod
    spec: ModelSpec
    device: torch.device
    seed: int
    next_step: int = 0

    def __post_init__(self) -> None:
        self.normalise = Normalise(self.spec).to(self.device)

    def step(self, images: Tensor) -> dict[str, Any]:
        """One step on a batch chosen from uint8 images (N, 3, H, W); returns what to log."""
        batch = images[
            batch_indices(len(images), self.method.batch_size, self.seed, self.next_step)
        ]
        torch.manual_seed(self.seed * 1_000_003 + self.next_step)
        logged = self.method.step(self.normalise(batch.to(self.device)))
        self.next_step += 1
        return {"step": self.next_step, **logged}

    def save(self, path: Path) -> None:
        """Write everything that a resumed run needs."""
        state = {
            "model": self.method.model.state_dict(),
            "method": self.method.state(),
            "next_step": self.next_step,
        }
        write_atomically(path, lambda part: torch.save(state, part))

    def resume(self, path: Path) -> None:
        """Continue from ``save``.

        Raises:
            RunError: there is no checkpoint, or it is of another run.
        """
        if not path.is_file():
            raise RunError(f"nothing to resume: {path} does not exist")
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
            self.method.model.load_state_dict(state["model"])
            self.method.restore(state["method"])
            self.next_step = state["next_step"]
        except (RuntimeError, KeyError, ValueError, UnpicklingError) as error:
            raise RunError(f"{path} is not a checkpoint of this run: {error}") from None


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


def adapt(run: Adaptation, images: Tensor, out_dir: Path, progress: Progress = silent) -> None:
    """Run the remaining steps; the adapted model is ``run.method.model``.

    Args:
        run: fresh, or resumed.
        images: (N, 3, H, W) uint8 at the input size.
        out_dir: gets ``metrics.jsonl`` and ``checkpoints/``.
        progress: wraps the steps.
    """
    with open_metrics(out_dir, run.next_step) as metrics:
        for logged in progress(_steps(run, images, out_dir)):
            metrics.write(json.dumps(logged) + "\n")
    run.method.finish()


def _steps(run: Adaptation, images: Tensor, out_dir: Path) -> Iterator[dict[str, Any]]:
    while run.next_step < run.method.num_steps:
        yield run.step(images)
        if run.next_step % CHECKPOINT_EVERY == 0:
            run.save(checkpoint_path(out_dir))


def checkpoint_path(out_dir: Path) -> Path:
    """Where the newest resumable checkpoint of a run is."""
    return out_dir / "checkpoints" / "last.pt"
