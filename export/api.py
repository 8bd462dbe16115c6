"""The public function of export; the command line calls the same code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from export.command import ExportFlags, export_loaded
from export.engine.request import EngineRequest
from export.graph.deploy import Outputs
from export.result import ExportResult
from runtime.bundle.labels import LabelSpace
from runtime.bundle.manifest import Manifest, read_manifest
from sfda_edge.adaptation.request import Run
from sfda_edge.api import ModelSource, load_model
from sfda_edge.data import ImageSource
from sfda_edge.data.validation import optional_validation
from sfda_edge.models.sliding_windows import SlidingWindows
from sfda_edge.recipes.recipe import toml_value


@dataclass(frozen=True, eq=False, kw_only=True)
class Bundle:
    """A written bundle.

    Attributes:
        path: the directory.
        manifest: what the model expects and returns.
        result: how it compares with the model, its size, its times.
    """

    path: Path
    manifest: Manifest
    result: ExportResult


def export(
    model: ModelSource,
    *,
    images: ImageSource | None = None,
    windows: SlidingWindows | None = None,
    precision: Literal["fp32", "fp16", "int8"] = "fp32",
    out_dir: str | Path = "bundle",
    profile: str = "cpu",
    argmax: Literal["full", "coarse"] = "full",
    confidence: bool = False,
    health: bool = False,
    dynamic_batch: bool = False,
    validation: ImageSource | None = None,
    validation_labels: str | Path | None = None,
    validation_classes: str | LabelSpace | None = None,
    thresholds: Mapping[str, Any] | None = None,
    pictures: bool = True,
    engine: EngineRequest | None = None,
    **model_options: Any,
) -> Bundle:
    """Export a model as a bundle; nothing is written when it differs from the model.

    Args:
        model: a run of ``sfda_edge.adapt``, or what ``sfda_edge.load_model`` takes.
        images: target frames that the bundle is compared on; None for those of the run.
        windows: cut images, those of ``validation`` too, into windows of the input size; None for
            whole images, or where the run's images are used for what the run did.
        precision: compute precision.
        out_dir: the bundle; an earlier bundle there is replaced.
        profile: where it will run: ``cpu``, ``x86-cuda12``, ``x86-cuda13``, ``jetpack6``,
            ``jetpack7`` or ``rtx``.
        argmax: labels at full size, or on the network's own grid and then enlarged.
        confidence: also output confidences.
        health: also output drift figures.
        dynamic_batch: any number of images at once.
        validation: labelled images on which the mIoU must not drop.
        validation_labels: folder of label images, for a plain folder or video of ``validation``.
        validation_classes: what these labels mean; None for the model's classes.
        thresholds: of the comparison, by name, such as ``{"fp16.label_agreement": 0.99}``.
        pictures: whether up to three target frames go into the bundle.
        engine: a TensorRT engine to build.
        **model_options: of ``load_model``, such as ``class_names`` and ``size_hw``.

    Raises:
        ParityError: the graph differs from the model by more than the thresholds allow.
        SfdaEdgeError: something that the caller has to change.
    """
    loaded = load_model(model, **model_options)
    if images is None and isinstance(model, Run):
        images, windows = model.images, windows or model.windows
    flags = ExportFlags(
        precision=precision,
        outputs=Outputs(argmax, confidence, health),
        profile=profile,
        dynamic_batch=dynamic_batch,
        images=images,
        windows=windows,
        validation=optional_validation(validation, validation_labels, validation_classes),
        overrides=tuple(f"{k}={toml_value(v)}" for k, v in (thresholds or {}).items()),
        engine=engine,
        pictures=pictures,
    )
    path = Path(out_dir)
    result = export_loaded(loaded, flags, path)
    return Bundle(path=path, manifest=read_manifest(path), result=result)
