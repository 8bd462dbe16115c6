"""Export what the command line names: a run or weights in, a bundle out."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from export.bundle.provenance import provenance, recorded_run, unadapted
from export.bundle.write import export_bundle
from export.engine.request import EngineRequest
from export.errors import ExportError
from export.gate.thresholds import ExportRecipe
from export.graph.deploy import FULL_LABEL_MAP, Answers
from export.profiles import target_profile
from export.request import ExportRequest
from export.result import ExportResult
from runtime.images import resize_image
from sfda_edge.data import open_images
from sfda_edge.data.images import ImageSet
from sfda_edge.data.loading import load_labelled, read_all
from sfda_edge.data.validation import Validation
from sfda_edge.errors import DataError
from sfda_edge.models.source_model import ModelFlags, SourceModel, default_weights, load_source
from sfda_edge.recipes.recipe import load_recipe

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportFlags:
    """What the command line asks for.

    Attributes:
        precision: fp32, fp16 or int8.
        answers: what the graph shall answer.
        target: a name in ``PROFILES``.
        dynamic_batch: whether the graph takes any number of images.
        images: what to prove it on; None for the images that it was adapted to.
        validation: labelled images on which the mIoU may not fall; None for none.
        recipe: thresholds, by name or file.
        overrides: ``KEY=VALUE`` of the recipe.
        engine: to build from the graph; None for none.
        pictures: whether the card shows target frames.
    """

    precision: str = "fp32"
    answers: Answers = FULL_LABEL_MAP
    target: str = "cpu"
    dynamic_batch: bool = False
    images: str | None = None
    validation: Validation | None = None
    recipe: str = "export"
    overrides: tuple[str, ...] = ()
    engine: EngineRequest | None = None
    pictures: bool = True


def export_model(model: ModelFlags, flags: ExportFlags, out_dir: Path) -> ExportResult:
    """Export the model that the flags name, the latest run when they name none.

    Args:
        model: the model.
        flags: how to export it.
        out_dir: the bundle.

    Raises:
        SfdaEdgeError: the model or the images cannot be used.
        ExportError: the export failed, or its answers differ.
    """
    profile = target_profile(flags.target)
    recipe = load_recipe(flags.recipe, ExportRecipe, flags.overrides)
    weights = default_weights(model.weights, else_packaged=False)
    source = load_source(replace(model, weights=weights))
    run = recorded_run(source)
    spec = flags.images or _adapted_to(run)
    frames, calibration = _frames(source, spec, recipe, flags.precision == "int8")
    others = " (--fp16 or --int8 for others)" if flags.precision == "fp32" else ""
    logger.info("precision: %s%s", flags.precision, others)
    logger.info("target: %s, %s (--target for another)", flags.target, profile.machine)
    logger.info("gate: %d frames of %s (--images for others)", len(frames), spec)
    logger.info("bundle: %s (--out DIR for another)", out_dir)
    request = ExportRequest(
        source.model,
        source.spec,
        frames,
        _labelled(source, flags.validation) if flags.validation else (),
        calibration,
        flags.precision,
        flags.answers,
        profile,
        flags.dynamic_batch,
        recipe,
        provenance(source, run) | {"target": flags.target},
        flags.pictures,
        unadapted(source, run),
        flags.engine,
    )
    return export_bundle(request, out_dir)


def _adapted_to(run: dict[str, Any]) -> str:
    if "images" not in run.get("inputs", {}):
        raise ExportError("these weights have no run beside them; give --images to prove them on")
    return run["inputs"]["images"]


def _frames(
    source: SourceModel, spec: str, recipe: ExportRecipe, calibrated: bool
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Frames for the gate, and others to calibrate on; each spread over the set."""
    try:
        images = open_images(spec)
    except DataError as error:
        raise ExportError(f"the gate needs target images: {error}; give --images") from None
    numbers = np.arange(len(images))
    # A small set is shared between the two.
    most = min(recipe.gate_images, max(1, len(numbers) // 2)) if calibrated else recipe.gate_images
    gate = _spread(numbers, most)
    if not calibrated:
        return _read(source, images, gate), []
    others = _spread(np.setdiff1d(numbers, gate), recipe.calibration_images)
    return _read(source, images, gate), _read(source, images, others)


def _spread(numbers: np.ndarray, most: int) -> np.ndarray:
    if len(numbers) <= most:
        return numbers
    return numbers[np.linspace(0, len(numbers) - 1, most).astype(int)]


def _read(source: SourceModel, images: ImageSet, numbers: np.ndarray) -> list[np.ndarray]:
    """Images (H, W, 3) uint8 at the input size; damaged ones are left out aloud."""
    if not len(numbers):
        return []
    subset = replace(images, samples=tuple(images.samples[index] for index in numbers))
    return [
        np.ascontiguousarray(resize_image(loaded.image, source.spec.input_hw))
        for loaded in read_all(subset, None, skip_bad=True)
    ]


def _labelled(source: SourceModel, validation: Validation) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and label maps at the input size; damaged ones are left out aloud.

    Raises:
        DataError: they cannot be scored.
    """
    space = source.spec.answer_space
    images = validation.open(space)
    pictures, labels = load_labelled(images, space, source.spec.input_hw, skip_bad=True)
    if not (labels != space.ignore_index).any():
        raise DataError(f"{images.title}: no pixel has a label that the model knows")
    return list(zip(pictures.permute(0, 2, 3, 1).contiguous().numpy(), labels.numpy(), strict=True))
