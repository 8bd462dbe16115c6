"""sfda-edge adapt: a model and unlabeled images in, a run directory out."""

from __future__ import annotations

import copy
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from runtime.manifest import file_sha256
from runtime.overlay import Overlay
from sfda_edge.adapt import Adaptation, adapt, checkpoint_path
from sfda_edge.checkpoint import save_model
from sfda_edge.data import absolute_spec, open_images
from sfda_edge.data.loading import load_images
from sfda_edge.errors import RecipeError
from sfda_edge.evaluate import Predictor
from sfda_edge.inference import choose_device
from sfda_edge.methods import METHODS
from sfda_edge.model_source import ModelFlags, SourceModel, load_source
from sfda_edge.models import ModelSpec
from sfda_edge.progress import progress_bar
from sfda_edge.recipe import load_recipe, recipe_toml
from sfda_edge.report.contact_sheet import contact_sheet
from sfda_edge.report.page import Page, Section, picture_url, write_page
from sfda_edge.run_directory import RunDirectory, default_run_dir

logger = logging.getLogger(__name__)
ADAPTED_FILE, REPORT_FILE = "adapted.safetensors", "report.html"
PACKAGED_IMAGES = "streetsynth:target"
DEFAULT_METHOD = "bn"
_PICTURES = 4


@dataclass(frozen=True)
class AdaptRequest:
    """What the user asked for.

    Attributes:
        flags: the model.
        method: a name in ``METHODS``; None for the default.
        recipe: a recipe's name or file; None for the method's own.
        overrides: ``KEY=VALUE`` settings.
        images: the target images, as ``open_images`` takes them; None for the packaged ones.
        out_dir: None for a new folder in ``runs/``.
        device: as ``choose_device`` takes it.
        resume: go on with the run in ``out_dir``.
        skip_bad: leave damaged images out.
    """

    flags: ModelFlags
    method: str | None = None
    recipe: str | None = None
    overrides: tuple[str, ...] = ()
    images: str | None = None
    out_dir: Path | None = None
    device: str = "auto"
    resume: bool = False
    skip_bad: bool = False


def run(request: AdaptRequest) -> Path:
    """Adapt, and return the run directory.

    Raises:
        SfdaEdgeError: something that the user has to change.
    """
    source = load_source(request.flags, "--weights FILE for another")
    method_name, images_spec = _defaults(request)
    if method_name not in METHODS:
        raise RecipeError(f"unknown method '{method_name}'; known: {', '.join(METHODS)}")
    recipe_type, method_type = METHODS[method_name]
    recipe = load_recipe(request.recipe or method_name, recipe_type, request.overrides)
    device = choose_device(request.device)
    out_dir = request.out_dir or default_run_dir(method_name)
    logger.info("run: %s (--out DIR for another); device: %s (--device)", out_dir, device)
    target = open_images(images_spec)
    bar = progress_bar("read images", len(target))
    images = load_images(target, source.spec.input_hw, request.skip_bad, bar)
    inputs = _inputs(source, method_name, recipe, images_spec)
    inputs |= {"device": str(device), "target_sha256": _digest(images)}
    directory = RunDirectory(out_dir, inputs, recipe_toml(recipe), request.resume)
    original = copy.deepcopy(source.model)
    method = method_type(source.model.to(device), recipe)
    adaptation = Adaptation(method, source.spec, device, recipe.seed)
    if request.resume and checkpoint_path(out_dir).exists():
        adaptation.resume(checkpoint_path(out_dir))
    bar = progress_bar(method_name, method.num_steps, adaptation.next_step)
    adapt(adaptation, images, out_dir, bar)
    _leave(directory, source.spec, adaptation, original, images, method_name)
    return out_dir


def _digest(images: Tensor) -> str:
    """Hexadecimal SHA-256 of the target images as the model sees them."""
    return hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()


def _defaults(request: AdaptRequest) -> tuple[str, str]:
    """Method and images, each default said in a line with the flag that changes it."""
    if request.method is None:
        logger.info("method: %s (--method NAME for another)", DEFAULT_METHOD)
    if request.recipe is None:
        logger.info("recipe: the method's own (--recipe NAME|FILE, --set KEY=VALUE)")
    if request.images is None:
        logger.info("images: the packaged StreetSynth dusk frames (--images for yours)")
    return request.method or DEFAULT_METHOD, request.images or PACKAGED_IMAGES


def _inputs(source: SourceModel, method: str, recipe: Any, images_spec: str) -> dict[str, Any]:
    height, width = source.spec.input_hw
    return {
        "method": method,
        "recipe": msgspec.to_builtins(recipe),
        "model": source.spec.architecture,
        "weights": str(source.path.resolve()),
        "weights_sha256": source.sha256,
        "spec": msgspec.to_builtins(source.spec),
        "size": f"{width}x{height}",
        "images": absolute_spec(images_spec),
    }


def _leave(
    directory: RunDirectory,
    spec: ModelSpec,
    adaptation: Adaptation,
    original: nn.Module,
    images: Tensor,
    method: str,
) -> None:
    """Write what a finished run leaves."""
    model = adaptation.method.model.eval()
    path = directory.path / ADAPTED_FILE
    save_model(path, model, spec)
    before = Predictor(original, spec, adaptation.device)
    after = Predictor(model, spec, adaptation.device)
    picture, changed = _before_and_after(before, after, images)
    seen = min(adaptation.method.num_steps * adaptation.method.batch_size, len(images))
    result = {
        "adapted_sha256": file_sha256(path),
        "num_images": len(images),
        "num_images_seen": seen,
        "share_of_pixels_changed": round(changed, 4),
    }
    write_page(directory.path / REPORT_FILE, _report(method, picture, result))
    directory.finish(result)
    directory.make_latest()
    logger.info("%.1f %% of the pixels have another label now", 100 * changed)


def _before_and_after(
    before: Predictor, after: Predictor, images: Tensor
) -> tuple[np.ndarray, float]:
    """Pictures of a few target images, and the share of their pixels whose label changed."""
    space = before.spec.answer_space
    overlay = Overlay(space, legend=False)
    rows, changed = [], []
    for index in torch.linspace(0, len(images) - 1, min(_PICTURES, len(images))).long():
        image = np.ascontiguousarray(images[index].permute(1, 2, 0).numpy())
        first, second = before.label_map(image), after.label_map(image)
        rows.append([image, overlay.draw(image, first), overlay.draw(image, second)])
        changed.append(float((first != second).mean()))
    sheet = contact_sheet(rows, ["target image", "source model", "adapted"], space)
    return sheet, float(np.mean(changed))


def _report(method: str, picture: np.ndarray, result: dict[str, Any]) -> Page:
    introduction = (
        f"Adapted with method {method} to {result['num_images_seen']} of "
        f"{result['num_images']} unlabeled images. "
        f"{100 * result['share_of_pixels_changed']:.1f} % of the pixels below have another label "
        "than before. Whether they are better, labels alone can tell: sfda-edge evaluate."
    )
    section = Section("Before and after", picture=picture_url(picture))
    return Page("Adaptation report", introduction, [section])
