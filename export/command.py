"""Export what the command line names: a run or weights in, a bundle out."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from export.bundle import ExportRequest, ExportResult, export_bundle
from export.deploy import FULL_LABEL_MAP, Answers
from export.errors import ExportError
from export.profiles import target_profile
from export.recipe import ExportRecipe
from runtime.images import resize_image
from sfda_edge.data import open_images
from sfda_edge.data.loading import load_labelled, read_all
from sfda_edge.errors import DataError
from sfda_edge.model_source import ModelFlags, SourceModel, default_weights, load_source
from sfda_edge.recipe import load_recipe
from sfda_edge.run_directory import read_run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportFlags:
    """What the command line asks for.

    Attributes:
        precision: fp32 or fp16.
        answers: what the graph shall answer.
        target: a name in ``PROFILES``.
        dynamic_batch: whether the graph takes any number of images.
        images: what to prove it on; None for the images that it was adapted to.
        validation: labelled images on which the mIoU may not fall; None for none.
        recipe: thresholds, by name or file.
        overrides: ``KEY=VALUE`` of the recipe.
    """

    precision: str = "fp32"
    answers: Answers = FULL_LABEL_MAP
    target: str = "cpu"
    dynamic_batch: bool = False
    images: str | None = None
    validation: str | None = None
    recipe: str = "export"
    overrides: tuple[str, ...] = ()


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
    inputs = _run_inputs(source)
    spec = flags.images or _adapted_to(inputs)
    frames = _gate_images(source, spec, recipe.gate_images)
    labels: list[np.ndarray | None] = [None] * len(frames)
    if flags.validation is not None:
        pictures, label_maps = _labelled(source, flags.validation)
        frames, labels = frames + pictures, [*labels, *label_maps]
    chosen = "--fp16 for half precision" if flags.precision == "fp32" else "as --fp16 asks"
    logger.info("precision: %s (%s)", flags.precision, chosen)
    logger.info("target: %s, %s (--target for another)", flags.target, profile.machine)
    logger.info("gate: %d frames of %s (--images for others)", len(frames), spec)
    logger.info("bundle: %s (--out DIR for another)", out_dir)
    request = ExportRequest(
        source.model,
        source.spec,
        frames,
        labels,
        flags.precision,
        flags.answers,
        profile,
        flags.dynamic_batch,
        recipe,
        _provenance(source, inputs) | {"target": flags.target},
    )
    return export_bundle(request, out_dir)


def _run_inputs(source: SourceModel) -> dict[str, Any]:
    """What the run beside the weights was made from, if these are the weights that it made."""
    run = read_run(source.path.parent)
    made = run.get("result", {}).get("adapted_sha256")
    return run.get("inputs", {}) if made == source.sha256 else {}


def _adapted_to(inputs: dict[str, Any]) -> str:
    if "images" not in inputs:
        raise ExportError("these weights have no run beside them; give --images to prove them on")
    return inputs["images"]


def _gate_images(source: SourceModel, spec: str, most: int) -> list[np.ndarray]:
    """At most so many frames spread over the set, at the input size."""
    try:
        images = open_images(spec)
    except DataError as error:
        raise ExportError(f"the gate needs target images: {error}; give --images") from None
    chosen = np.linspace(0, len(images) - 1, min(most, len(images))).astype(int)
    subset = replace(images, samples=tuple(images.samples[index] for index in chosen))
    return [
        np.ascontiguousarray(resize_image(loaded.image, source.spec.input_hw))
        for loaded in read_all(subset, None, skip_bad=True)
    ]


def _labelled(source: SourceModel, spec: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Images and label maps at the input size."""
    images, space = open_images(spec), source.spec.answer_space
    if images.label_space is None or images.label_space.names != space.names:
        raise ExportError(
            f"--validation {spec} has no labels of the classes {', '.join(space.names)}"
        )
    pictures, labels = load_labelled(images, space, source.spec.input_hw, skip_bad=True)
    return list(pictures.permute(0, 2, 3, 1).contiguous().numpy()), list(labels.numpy())


def _provenance(source: SourceModel, inputs: dict[str, Any]) -> dict[str, Any]:
    provenance: dict[str, Any] = {
        "architecture": source.spec.architecture,
        "weights": source.path.name,
        "weights_sha256": source.sha256,
    }
    if "method" in inputs:
        provenance |= {
            "source_weights_sha256": inputs["weights_sha256"],
            "method": inputs["method"],
            "recipe": inputs["recipe"],
            "target_sha256": inputs["target_sha256"],
            "target_images": Path(inputs["images"]).name,
        }
    return provenance
