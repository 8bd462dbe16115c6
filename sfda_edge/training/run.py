"""sfda-edge train: a source model from labelled images."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch

from runtime.bundle.manifest import file_sha256
from runtime.output import say
from sfda_edge.data import ImageSet, absolute_spec, open_images
from sfda_edge.data.loading import load_labelled
from sfda_edge.data.validation import Validation
from sfda_edge.errors import DataError
from sfda_edge.evaluation.evaluate import Predictor, evaluate
from sfda_edge.labels.label_spaces import label_space
from sfda_edge.models import ModelSpec, architecture, build_model
from sfda_edge.models.imagenet import load_imagenet_encoder
from sfda_edge.models.inference import choose_device
from sfda_edge.recipes.recipe import load_recipe, recipe_toml
from sfda_edge.runs.directory import RunDirectory, default_run_dir
from sfda_edge.runs.progress import progress_bar
from sfda_edge.training.supervised import WEIGHTS_FILE, Trainer, TrainRecipe, checkpoint_path, train

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainRequest:
    """What the user asked for.

    Attributes:
        recipe: a recipe's name or file.
        images: labelled, as ``open_images`` takes them.
        labels_dir: for a plain folder of images.
        validation: labelled images to score at the end, or None.
        overrides: ``KEY=VALUE`` settings.
        out_dir: None for a new folder in ``runs/``.
        device: as ``choose_device`` takes it.
        resume: go on with the run in ``out_dir``.
        skip_bad: leave damaged samples out.
    """

    recipe: str
    images: str
    labels_dir: Path | None = None
    validation: Validation | None = None
    overrides: tuple[str, ...] = ()
    out_dir: Path | None = None
    device: str = "auto"
    resume: bool = False
    skip_bad: bool = False


def run(request: TrainRequest) -> Path:
    """Train, and return the run directory.

    Raises:
        SfdaEdgeError: something that the user has to change.
    """
    recipe = load_recipe(request.recipe, TrainRecipe, request.overrides)
    device = choose_device(request.device)
    out_dir = request.out_dir or default_run_dir("train")
    logger.info("run: %s (--out DIR for another); device: %s (--device)", out_dir, device)
    images = open_images(request.images, request.labels_dir)
    found = architecture(recipe.model)
    space = label_space(recipe.label_space)
    spec = ModelSpec(recipe.model, space, recipe.input_hw, found.mean, found.std, bgr=found.bgr)
    if images.label_space is not None and images.label_space.names != space.names:
        raise DataError(f"{images.title} has other classes than label_space = {recipe.label_space}")
    validation = None
    if request.validation is not None:
        bar = progress_bar("look at the validation images", None)
        validation = request.validation.opened_whole(space, request.skip_bad, bar)
    trainer = _trainer(recipe, spec, device)
    bar = progress_bar("read images", len(images))
    pictures, labels = load_labelled(images, space, spec.input_hw, request.skip_bad, bar)
    inputs = {"recipe": msgspec.to_builtins(recipe), "images": absolute_spec(request.images)}
    directory = RunDirectory(out_dir, inputs, recipe_toml(recipe), request.resume)
    if request.resume and checkpoint_path(out_dir).exists():
        trainer.resume(checkpoint_path(out_dir))
    steps = progress_bar("train", recipe.steps, trainer.next_step)
    train(trainer, pictures, labels, out_dir, steps)
    result = {"weights_sha256": file_sha256(out_dir / WEIGHTS_FILE), "num_images": len(pictures)}
    directory.finish({**result, **_validate(validation, trainer, spec, device, request.skip_bad)})
    return out_dir


def _trainer(recipe: TrainRecipe, spec: ModelSpec, device: torch.device) -> Trainer:
    torch.manual_seed(recipe.seed)
    model = build_model(spec)
    if recipe.initial_weights == "imagenet":
        load_imagenet_encoder(model)
    return Trainer(model, spec, recipe, device)


def _validate(
    images: ImageSet | None,
    trainer: Trainer,
    spec: ModelSpec,
    device: torch.device,
    skip_bad: bool,
) -> dict[str, float]:
    if images is None:
        return {}
    bar = progress_bar("validate", len(images))
    evaluation = evaluate(Predictor(trainer.model, spec, device), images, skip_bad, bar)
    say(evaluation.text())
    return {"validation_miou": round(evaluation.scores.miou, 5)}
