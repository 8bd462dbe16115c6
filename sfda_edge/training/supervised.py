"""Train a source model with labels: cross-entropy, augmentation, one loop."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfda_edge.data.loading import Progress, silent
from sfda_edge.errors import RecipeError, RunError
from sfda_edge.models import ModelSpec
from sfda_edge.models.checkpoint import save_model, save_state
from sfda_edge.models.inference import Normalise, enlarged
from sfda_edge.runs.metrics import open_metrics

logger = logging.getLogger(__name__)
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class TrainRecipe:
    """Settings of supervised training.

    Attributes:
        model: the network, as for ``--model``.
        initial_weights: ``imagenet`` for the light networks' encoder (extra ``imagenet``), or none.
        label_space: the classes.
        input_hw: the size that the network is trained and used at.
        batch_size, steps, seed: as they say.
        learning_rate, weight_decay: of AdamW.
        schedule: of the learning rate after warm-up, down to zero.
        warmup_steps: linear, from zero.
        min_scale: crops keep at least this share of the image's area.
        colour_jitter: strength of brightness, contrast and saturation changes; hue a sixth of it.
        blur_share: share of blurred images.
        precision: ``bf16`` needs a CUDA GPU.
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
        if min(self.steps, self.batch_size, self.checkpoint_every) < 1:
            raise ValueError("steps, batch_size and checkpoint_every must be at least 1")
        if not 0 < self.min_scale <= 1:
            raise ValueError(f"min_scale must be in (0, 1], got {self.min_scale}")
        if not (self.learning_rate > 0 and self.weight_decay >= 0 and self.warmup_steps >= 0):
            raise ValueError(
                "learning_rate must be above 0, weight_decay and warmup_steps not less"
            )
        if not (0 <= self.blur_share <= 1 and 0 <= self.colour_jitter <= 1):
            raise ValueError("blur_share and colour_jitter must be in [0, 1]")


def learning_rate_factor(step: int, recipe: TrainRecipe) -> float:
    """The learning rate at a step, as a share of its highest value."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(recipe.steps - recipe.warmup_steps, 1)
    if recipe.schedule == "poly":
        return (1 - done) ** 0.9
    return float(0.5 + 0.5 * torch.cos(torch.tensor(done * torch.pi)))


def build_augmentation(recipe: TrainRecipe) -> Callable[[Tensor, Tensor], list[Tensor]]:
    """Flips, crops, colour and blur for images (N, 3, H, W) in [0, 1] and masks (N, 1, H, W)."""
    import kornia.augmentation as K  # the community's own abbreviation

    height, width = recipe.input_hw
    ratio, jitter = width / height, recipe.colour_jitter
    return K.AugmentationSequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomResizedCrop(
            (height, width),
            (recipe.min_scale, 1.0),
            (0.8 * ratio, 1.25 * ratio),
            align_corners=False,
        ),
        K.ColorJitter(jitter, jitter, jitter, jitter / 6, p=0.8),
        K.RandomGaussianBlur((5, 5), (0.1, 1.5), p=recipe.blur_share),
        data_keys=["input", "mask"],
    )


class Trainer:
    """A training run: model, optimiser, and the step that it has reached."""

    def __init__(
        self, model: nn.Module, spec: ModelSpec, recipe: TrainRecipe, device: torch.device
    ) -> None:
        if recipe.precision == "bf16" and device.type != "cuda":
            raise RecipeError(f"precision bf16 needs a CUDA GPU; the device is {device}")
        self.model = model.to(device).train()
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.spec, self.recipe, self.device = spec, recipe, device
        self.normalise = Normalise(spec).to(device)
        self.augment = build_augmentation(recipe)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.next_step = 0

    def step(self, images: Tensor, labels: Tensor) -> float:
        """One step on uint8 images (N, 3, H, W) and labels (N, H, W); returns the loss.

        All randomness comes from the seed and the step's number, so a resumed run is the same run.
        """
        recipe = self.recipe
        torch.manual_seed(recipe.seed * 1_000_003 + self.next_step)
        chosen = torch.randint(len(images), (recipe.batch_size,))
        pictures, targets = self._batch(images[chosen], labels[chosen])
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * learning_rate_factor(self.next_step, recipe)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            logits = enlarged(self.model(pictures).float(), pictures.shape[2:])
            loss = functional.cross_entropy(
                logits, targets, ignore_index=self.spec.label_space.ignore_index
            )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.next_step += 1
        return loss.item()

    def _batch(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        ignored = self.spec.label_space.ignore_index
        # Crops fill with 0; shifted by one, 0 becomes "outside the image".
        masks = labels.to(self.device).float()[:, None] + 1
        pictures, masks = self.augment(images.to(self.device).float() / 255, masks)
        targets = masks[:, 0].round().long() - 1
        targets[targets < 0] = ignored
        normalised = self.normalise(pictures * 255)
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
            RunError: there is no checkpoint, or it is of another run.
        """
        if not path.is_file():
            raise RunError(f"nothing to resume: {path} does not exist")
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.next_step = state["next_step"]
        except (RuntimeError, KeyError, ValueError, UnpicklingError) as error:
            raise RunError(f"{path} is not a checkpoint of this run: {error}") from None


def train(
    trainer: Trainer, images: Tensor, labels: Tensor, out_dir: Path, progress: Progress = silent
) -> None:
    """Run the remaining steps; leaves ``model.safetensors``, ``model.json`` and ``metrics.jsonl``.

    Args:
        trainer: fresh, or resumed.
        images: (N, 3, H, W) uint8 at the input size.
        labels: (N, H, W) uint8.
        out_dir: exists; ``checkpoints/`` is made inside.
        progress: wraps the steps.

    Raises:
        RunError: the loss is no longer a number, or the folder cannot be written.
    """
    recipe, checkpoint = trainer.recipe, checkpoint_path(out_dir)
    with open_metrics(out_dir, trainer.next_step) as metrics:
        for step in progress(range(trainer.next_step, recipe.steps)):
            loss = trainer.step(images, labels)
            if not loss < float("inf"):
                raise RunError(f"the loss is {loss} at step {step}; try a lower learning_rate")
            metrics.write(json.dumps({"step": trainer.next_step, "loss": round(loss, 5)}) + "\n")
            if trainer.next_step % recipe.checkpoint_every == 0:
                trainer.save(checkpoint)
                metrics.flush()
    save_model(out_dir / WEIGHTS_FILE, trainer.model, trainer.spec)


def checkpoint_path(out_dir: Path) -> Path:
    """Where the newest resumable checkpoint of a run is."""
    return out_dir / "checkpoints" / "last.pt"
