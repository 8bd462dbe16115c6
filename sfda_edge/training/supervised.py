"""Train a source model with labels: cross-entropy, augmentation, one loop."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfda_edge.data.labelled_images import ImagesAhead, LabelledImages
from sfda_edge.errors import RecipeError, RunError
from sfda_edge.models import ModelSpec
from sfda_edge.models.checkpoint import save_model
from sfda_edge.models.inference import Normalise, enlarged, main_output
from sfda_edge.recipes.recipe import require, require_augmentation, require_training
from sfda_edge.runs.metrics import open_metrics
from sfda_edge.runs.progress import Progress, silent
from sfda_edge.runs.state import read_state, restoring, save_state
from sfda_edge.training.augmentation import LabelledBatch, StrongAugmentation

WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class TrainRecipe:
    """Settings of supervised training.

    Attributes:
        model: the network, as for ``--model``.
        label_space: the classes.
        input_hw: height and width that the network is trained and used at.
        steps: number of batches.
        batch_size: images of a batch.
        initial_weights: ``imagenet`` for the light networks' encoder (extra ``imagenet``), or none.
        learning_rate, weight_decay: of AdamW.
        schedule: of the learning rate after warm-up, down to zero.
        warmup_steps: in which the learning rate rises linearly from zero.
        min_scale: crops keep at least this share of the image's area.
        colour_jitter: strength of brightness, contrast and saturation changes; hue a sixth of it.
        blur_share: share of blurred images.
        precision: ``bf16`` needs a CUDA GPU.
        seed: of initial weights, batches and augmentation.
        checkpoint_every: steps between resumable checkpoints.
    """

    model: str
    label_space: str
    input_hw: tuple[int, int]
    steps: int
    batch_size: int = 8
    initial_weights: Literal["imagenet", "none"] = "none"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    schedule: Literal["poly", "cosine"] = "poly"
    warmup_steps: int = 50
    min_scale: float = 0.35
    colour_jitter: float = 0.3
    blur_share: float = 0.3
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        require(min(self.input_hw) >= 1, "input_hw must be at least 1 x 1", self.input_hw)
        require(0 <= self.seed < 2**32, "seed must be in [0, 2^32)", self.seed)
        require(self.checkpoint_every >= 1, "checkpoint_every must be at least 1")
        require_training(self)
        require_augmentation(self)


def learning_rate_factor(step: int, recipe: TrainRecipe) -> float:
    """The learning rate at a step, as a share of its highest value."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(recipe.steps - recipe.warmup_steps, 1)
    if recipe.schedule == "poly":
        return (1 - done) ** 0.9
    return 0.5 + 0.5 * math.cos(done * math.pi)


class Trainer:
    """A training run: model, optimizer, and the step that it has reached."""

    def __init__(
        self, model: nn.Module, spec: ModelSpec, recipe: TrainRecipe, device: torch.device
    ) -> None:
        if recipe.precision == "bf16" and device.type != "cuda":
            raise RecipeError(f"precision bf16 needs a CUDA GPU; the device is {device}")
        self.model = model.to(device).train()
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.spec, self.recipe, self.device = spec, recipe, device
        self.normalise = Normalise(spec).to(device)
        self.augment = StrongAugmentation(
            recipe.input_hw, recipe.min_scale, recipe.colour_jitter, recipe.blur_share
        )
        self.optimizer = torch.optim.AdamW(
            model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.next_step = 0
        self._coming: dict[int, ImagesAhead] = {}

    def step(self, images: LabelledImages) -> float | None:
        """One step on images chosen at random; returns the loss, None of images without labels.

        All randomness comes from the seed and the step, so a resumed run is the same run.
        """
        recipe = self.recipe
        batch = self._coming.pop(self.next_step, None) or self._chosen(images, self.next_step)
        if self.next_step + 1 < recipe.steps:
            self._coming = {self.next_step + 1: self._chosen(images, self.next_step + 1)}
        pair = batch.pair()
        torch.manual_seed(self._seed(self.next_step))
        torch.randint(len(images), (recipe.batch_size,))  # the choice's; augmentation follows it
        pictures, targets = self._batch(*pair)
        if not (targets != self.spec.label_space.ignore_index).any():
            self.next_step += 1
            return None  # the mean over no pixel is no number, and there is nothing to learn
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * learning_rate_factor(self.next_step, recipe)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            logits = enlarged(main_output(self.model(pictures)).float(), pictures.shape[2:])
            loss = functional.cross_entropy(
                logits, targets, ignore_index=self.spec.label_space.ignore_index
            )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.next_step += 1
        return loss.item()

    def _seed(self, step: int) -> int:
        return self.recipe.seed * 1_000_003 + step

    def _chosen(self, images: LabelledImages, step: int) -> ImagesAhead:
        """A step's images, which are read while the step before runs."""
        generator = torch.Generator().manual_seed(self._seed(step))
        chosen = torch.randint(len(images), (self.recipe.batch_size,), generator=generator)
        return images.ahead(chosen.tolist())

    def _batch(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        ignored = self.spec.label_space.ignore_index
        # Crops fill with 0; shifted by one, 0 becomes "outside the image".
        masks = labels.to(self.device).float()[:, None] + 1
        augmented = self.augment(LabelledBatch(images.to(self.device).float(), masks))
        targets = augmented.soft_labels[:, 0].round().long() - 1
        targets[targets < 0] = ignored
        normalised = self.normalise(augmented.images)
        return normalised.contiguous(memory_format=torch.channels_last), targets

    def save(self, path: Path) -> None:
        """Write everything that a resumed run needs."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
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
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.next_step = int(state["next_step"])


def train(
    trainer: Trainer, images: LabelledImages, out_dir: Path, *, progress: Progress = silent
) -> None:
    """Run the remaining steps; leaves ``model.safetensors``, ``model.json`` and ``metrics.jsonl``.

    Args:
        trainer: fresh, or resumed.
        images: labelled, at the input size.
        out_dir: exists; ``checkpoints/`` is made inside.
        progress: wraps the steps.

    Raises:
        RunError: the loss is no longer finite, or the folder cannot be written.
    """
    recipe, checkpoint = trainer.recipe, checkpoint_path(out_dir)
    with open_metrics(out_dir, trainer.next_step) as metrics:
        for step in progress(range(trainer.next_step, recipe.steps)):
            loss = trainer.step(images)
            if loss is not None:
                if not math.isfinite(loss):
                    raise RunError(f"the loss is {loss} at step {step}; try a lower learning_rate")
                line = {"step": trainer.next_step, "loss": round(loss, 5)}
                metrics.write(json.dumps(line) + "\n")
            if trainer.next_step % recipe.checkpoint_every == 0:
                trainer.save(checkpoint)
                metrics.flush()
    save_model(out_dir / WEIGHTS_FILE, trainer.model, trainer.spec)


def checkpoint_path(out_dir: Path) -> Path:
    """Where the newest resumable checkpoint of a run is."""
    return out_dir / "checkpoints" / "last.pt"
