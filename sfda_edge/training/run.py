"""From a recipe and labelled images to a run directory: what train does, however it is called."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from runtime.bundle.manifest import file_sha256
from sfda_edge.data import ImageSet, ImageSource, open_images, recorded_spec
from sfda_edge.data.labelled_images import LabelledImages
from sfda_edge.data.relabel import in_classes_of
from sfda_edge.data.validation import Validation
from sfda_edge.errors import CheckpointError, RecipeError
from sfda_edge.evaluation import Evaluation, Predictor, evaluate
from sfda_edge.labels.label_spaces import label_space
from sfda_edge.models import MODELS, ModelSpec, architecture, build_model, make_usable
from sfda_edge.models.initial_weights import load_imagenet_encoder, load_initial_weights
from sfda_edge.models.loaded_model import LoadedModel
from sfda_edge.recipes.recipe import load_recipe, parsed_override, recipe_toml
from sfda_edge.runs.device import choose_device
from sfda_edge.runs.directory import RunDirectory, default_run_dir, locked
from sfda_edge.runs.progress import progress_bar
from sfda_edge.training.supervised import (
    WEIGHTS_FILE,
    Trainer,
    TrainRecipe,
    checkpoint_path,
    train,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainRequest:
    """What is to be trained, on what, and how.

    Attributes:
        recipe: a recipe's name or file.
        images: labelled, as ``open_images`` takes them.
        labels_dir: for a plain folder of images.
        validation: labelled images to score at the end, or None.
        initial_weights: a file whose weights training begins with, see ``load_initial_weights``;
            None for what the recipe says.
        weights_key: which state dict of it to take where it holds several.
        overrides: ``KEY=VALUE`` settings.
        out_dir: None for a new folder in ``runs/``.
        device: as ``choose_device`` takes it.
        resume: continue the run in ``out_dir``.
        skip_bad: leave damaged samples out.
    """

    recipe: str
    images: ImageSource
    labels_dir: Path | None = None
    validation: Validation | None = None
    initial_weights: Path | None = None
    weights_key: str | None = None
    overrides: tuple[str, ...] = ()
    out_dir: Path | None = None
    device: str = "auto"
    resume: bool = False
    skip_bad: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedModel:
    """A finished training.

    Attributes:
        path: the run directory.
        model: the trained model.
        scores: on the validation images; None without any.
    """

    path: Path
    model: LoadedModel
    scores: Evaluation | None


def run_training(request: TrainRequest) -> TrainedModel:
    """Train, and write the run directory.

    Raises:
        SfdaEdgeError: something that the user has to change.
    """
    recipe = load_recipe(request.recipe, TrainRecipe, request.overrides)
    if request.initial_weights is not None:
        recipe = replace(recipe, initial_weights="none")
    _require_confirmed(recipe, request.overrides)
    device = choose_device(request.device)
    out_dir = request.out_dir or default_run_dir("train")
    logger.info("run: %s (--out DIR for another); device: %s (--device)", out_dir, device)
    spec = _spec(recipe)
    space = spec.label_space
    begun_with = _initial_weights(request)
    trainer = _trainer(recipe, spec, device, request)
    images = in_classes_of(open_images(request.images, request.labels_dir), space)
    validation = None
    if request.validation is not None:
        bar = progress_bar("check the validation images", None)
        validation = request.validation.open_checked(space, skip_bad=request.skip_bad, progress=bar)
    bar = progress_bar("read images", len(images))
    training_images = LabelledImages(
        images, space, spec.input_hw, skip_bad=request.skip_bad, progress=bar
    )
    inputs = {
        "recipe": msgspec.to_builtins(recipe),
        "images": recorded_spec(request.images),
        "labelled_images_sha256": training_images.sha256,
        **begun_with,
    }
    with locked(out_dir) as is_new:
        directory = RunDirectory(
            out_dir, inputs, recipe_toml(recipe), resume=request.resume, is_new=is_new
        )
        if request.resume and checkpoint_path(out_dir).exists():
            trainer.resume(checkpoint_path(out_dir))
        steps = progress_bar("train", recipe.steps, trainer.next_step)
        train(trainer, training_images, out_dir, progress=steps)
        scores = _scores(trainer, validation, device, request.skip_bad)
        path = out_dir / WEIGHTS_FILE
        sha256 = file_sha256(path)
        result: dict[str, Any] = {"weights_sha256": sha256, "num_images": len(training_images)}
        if scores is not None:
            result["validation_miou"] = round(scores.miou, 5)
        directory.finish(result)
    model = LoadedModel(network=trainer.model.cpu().eval(), spec=spec, path=path, sha256=sha256)
    return TrainedModel(path=out_dir, model=model, scores=scores)


def _require_confirmed(recipe: TrainRecipe, overrides: Sequence[str]) -> None:
    """Check that a recipe file does not name code that the user did not name.

    Raises:
        RecipeError: it does.
    """
    if recipe.model not in MODELS and (
        ("model", recipe.model) not in map(parsed_override, overrides)
    ):
        raise RecipeError(
            f"the recipe names the network {recipe.model}, which is not one of ours; if you trust "
            f"it, repeat it with --set model={recipe.model}"
        )


def _spec(recipe: TrainRecipe) -> ModelSpec:
    found = architecture(recipe.model)
    return ModelSpec(
        recipe.model,
        label_space(recipe.label_space),
        recipe.input_hw,
        mean=found.mean,
        std=found.std,
        bgr=found.bgr,
    )


def _initial_weights(request: TrainRequest) -> dict[str, str | None]:
    """What a run records of them.

    Raises:
        CheckpointError: the file cannot be read, or a part of none is named.
    """
    path = request.initial_weights
    if path is None and request.weights_key is not None:
        raise CheckpointError(
            f"--weights-key {request.weights_key} names a part of a file; give --initial-weights "
            "FILE, too"
        )
    try:
        sha256 = None if path is None else file_sha256(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    return {"initial_weights_sha256": sha256, "weights_key": request.weights_key}


def _trainer(
    recipe: TrainRecipe, spec: ModelSpec, device: torch.device, request: TrainRequest
) -> Trainer:
    torch.manual_seed(recipe.seed)
    model = build_model(spec)
    if spec.architecture not in MODELS:
        make_usable(model.eval(), spec)
    if request.initial_weights is not None:
        fill_from_file(model, spec, request.initial_weights, request.weights_key)
    elif recipe.initial_weights == "imagenet":
        load_imagenet_encoder(model)
    if recipe.batch_size == 1:
        _require_batches_of_one(model, spec)
    return Trainer(model, spec, recipe, device)


@torch.no_grad()
def _require_batches_of_one(model: nn.Module, spec: ModelSpec) -> None:
    """Try a batch of one, which BatchNorm of a single value a channel refuses.

    Raises:
        RecipeError: the network cannot train on it.
    """
    try:
        copy.deepcopy(model).train()(torch.zeros(1, spec.num_channels, *spec.input_hw))
    except ValueError as error:
        raise RecipeError(
            f"{spec.architecture} cannot train with batch_size = 1; take 2 or more ({error})"
        ) from None


def fill_from_file(model: nn.Module, spec: ModelSpec, path: Path, key: str | None) -> None:
    """Fill a new network with what a file has of it, as ``load_initial_weights`` does.

    Raises:
        CheckpointError: the file cannot be read, or is not of this network.
    """
    with torch.random.fork_rng():
        other = architecture(spec.architecture).build(spec.label_space.num_classes + 1)
    load_initial_weights(model, path, key, of_other_classes=other)


def _scores(
    trainer: Trainer, images: ImageSet | None, device: torch.device, skip_bad: bool
) -> Evaluation | None:
    if images is None:
        return None
    bar = progress_bar("validate", len(images))
    predictor = Predictor(trainer.model, trainer.spec, device)
    return evaluate(predictor, images, skip_bad=skip_bad, progress=bar)
