"""Export what the command line names: a run or weights in, a bundle out."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from export.bundle import ExportRequest, ExportResult, export_bundle
from export.errors import ExportError
from runtime.images import resize_image
from sfda_edge.data import open_images
from sfda_edge.data.loading import read_all
from sfda_edge.errors import DataError
from sfda_edge.model_source import ModelFlags, SourceModel, default_weights, load_source
from sfda_edge.run_directory import read_run

logger = logging.getLogger(__name__)
GATE_IMAGES = 16


def export_model(
    flags: ModelFlags, precision: str, images: str | None, out_dir: Path
) -> ExportResult:
    """Export the model that the flags name, the latest run when they name none.

    Args:
        flags: the model.
        precision: fp32 or fp16.
        images: what to prove it on; None for the images that it was adapted to.
        out_dir: the bundle.

    Raises:
        SfdaEdgeError: the model or the images cannot be used.
        ExportError: the export failed, or its answers differ.
    """
    weights = default_weights(flags.weights, else_packaged=False)
    source = load_source(replace(flags, weights=weights))
    inputs = _run_inputs(source)
    spec = images or _adapted_to(inputs)
    frames = _gate_images(source, spec)
    chosen = "--fp16 for half precision" if precision == "fp32" else "as --fp16 asks"
    logger.info("precision: %s (%s)", precision, chosen)
    logger.info("gate: %d frames of %s (--images for others)", len(frames), spec)
    logger.info("bundle: %s (--out DIR for another)", out_dir)
    provenance = _provenance(source, inputs)
    request = ExportRequest(source.model, source.spec, frames, precision, provenance)
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


def _gate_images(source: SourceModel, spec: str) -> list[np.ndarray]:
    """At most ``GATE_IMAGES`` frames spread over the set, at the input size."""
    try:
        images = open_images(spec)
    except DataError as error:
        raise ExportError(f"the gate needs target images: {error}; give --images") from None
    chosen = np.linspace(0, len(images) - 1, min(GATE_IMAGES, len(images))).astype(int)
    subset = replace(images, samples=tuple(images.samples[index] for index in chosen))
    return [
        np.ascontiguousarray(resize_image(loaded.image, source.spec.input_hw))
        for loaded in read_all(subset, None, skip_bad=True)
    ]


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
