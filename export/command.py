"""Export what the command line or the Python API names: a model in, a bundle out."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from export.bundle.directory import require_replaceable
from export.bundle.provenance import (
    for_source_domain,
    images_name,
    provenance,
    recorded_run,
    unadapted,
)
from export.bundle.write import export_bundle
from export.engine.request import EngineRequest
from export.errors import ExportError
from export.graph.deploy import FULL_LABEL_MAP, Outputs
from export.profiles import find_profile
from export.request import ExportRequest
from export.result import ExportResult
from export.thresholds import Thresholds
from runtime.files import read_text
from runtime.images import resize_image
from sfda_edge.adaptation.run import HASHES_FILE
from sfda_edge.data import ImageSet, ImageSource, open_images
from sfda_edge.data.labelled_images import LabelledImages
from sfda_edge.data.loading import read_all
from sfda_edge.data.target import TargetImages, image_bytes, listed_name
from sfda_edge.data.validation import Validation
from sfda_edge.data.windows import recorded_windows, whole_name, windows_of
from sfda_edge.errors import DataError
from sfda_edge.models.loaded_model import LoadedModel
from sfda_edge.models.sliding_windows import SlidingWindows
from sfda_edge.models.source_model import ModelRequest, default_weights, load_source
from sfda_edge.recipes.recipe import load_recipe
from sfda_edge.runs.progress import progress_bar

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, kw_only=True)
class ExportFlags:
    """How to export.

    Attributes:
        precision: fp32, fp16 or int8.
        outputs: of the graph.
        profile: a name in ``PROFILES``.
        dynamic_batch: whether the graph takes any number of images.
        images: what to compare on; None for the images that the model was adapted to.
        windows: cut images, those of ``validation`` too, into windows of the input size; None for
            whole images, or where the run's images are used for what the run did.
        validation: labelled images on which the mIoU must not drop; None for none.
        thresholds: by name or file.
        overrides: ``KEY=VALUE`` of the thresholds.
        engine: to build from the graph; None for none.
        pictures: whether the card shows target frames.
    """

    precision: str = "fp32"
    outputs: Outputs = FULL_LABEL_MAP
    profile: str = "cpu"
    dynamic_batch: bool = False
    images: ImageSource | None = None
    windows: SlidingWindows | None = None
    validation: Validation | None = None
    thresholds: str = "export"
    overrides: tuple[str, ...] = ()
    engine: EngineRequest | None = None
    pictures: bool = True

    def __post_init__(self) -> None:
        known = {"precision": ("fp32", "fp16", "int8"), "argmax": ("full", "coarse")}
        found = {"precision": self.precision, "argmax": self.outputs.argmax}
        for name, value in found.items():
            if value not in known[name]:
                raise ExportError(f"unknown {name} '{value}'; known: {', '.join(known[name])}")


def export_model(model: ModelRequest, flags: ExportFlags, out_dir: Path) -> ExportResult:
    """Export the model of a request, the latest run when it names none.

    Args:
        model: which model.
        flags: how to export it.
        out_dir: the bundle.

    Raises:
        SfdaEdgeError: the model or the images cannot be used.
        ExportError: the export failed, or the graph differs from the model.
    """
    find_profile(flags.profile)  # before the model is loaded
    weights = default_weights(model.weights, else_packaged=False)
    return export_loaded(load_source(replace(model, weights=weights)), flags, out_dir)


def export_loaded(source: LoadedModel, flags: ExportFlags, out_dir: Path) -> ExportResult:
    """Export a loaded model.

    Raises:
        SfdaEdgeError: the images cannot be used.
        ExportError: the export failed, or the graph differs from the model.
    """
    profile = find_profile(flags.profile)
    require_replaceable(out_dir.resolve())  # before the images are read
    thresholds = load_recipe(flags.thresholds, Thresholds, flags.overrides)
    run = recorded_run(source)
    windows = _windows(source, run, flags)
    images = _gate_images(source, run, flags)
    bar = progress_bar("measure images", len(images))
    images = windows_of(images, windows, source.spec.input_hw, progress=bar)
    gate, calibration = _frames(source, images, thresholds, flags.precision == "int8")
    others = " (--fp16 or --int8 for others)" if flags.precision == "fp32" else ""
    logger.info("precision: %s%s", flags.precision, others)
    logger.info("profile: %s, %s (--profile for another)", flags.profile, profile.machine)
    logger.info("gate: %d frames of %s (--images for others)", len(gate), images.title)
    logger.info("bundle: %s (--out DIR for another)", out_dir)
    request = ExportRequest(
        model=source.network,
        spec=source.spec,
        images=gate,
        validation=_labelled(source, flags.validation, windows) if flags.validation else (),
        calibration=calibration,
        precision=flags.precision,
        outputs=flags.outputs,
        profile=profile,
        dynamic_batch=flags.dynamic_batch,
        thresholds=thresholds,
        provenance=provenance(source, run)
        | {"profile": flags.profile, "compared_on": _compared_on(images, gate, windows)},
        pictures=flags.pictures,
        before=unadapted(source, run),
        engine=flags.engine,
    )
    return export_bundle(request, out_dir)


def _compared_on(
    images: ImageSet, gate: Sequence[np.ndarray], windows: SlidingWindows | None
) -> dict[str, Any]:
    """The images of the comparison, which need not be the run's; no paths."""
    digest = hashlib.sha256()
    for image in gate:
        digest.update(image.tobytes())
    cut = {} if windows is None else {"windows": windows.text()}
    return {"images": images_name(images.title), **cut, "sha256": digest.hexdigest()}


def _gate_images(source: LoadedModel, run: dict[str, Any], flags: ExportFlags) -> ImageSet:
    """The images that were given, else those that the model was adapted to.

    The record of a run may be of somebody else and name any folder; its images are used, and shown
    in the card, only where their hashes are the recorded ones, which nobody knows without them.

    Raises:
        ExportError: there are none, or they are not those of the run.
    """
    if flags.images is not None:
        return open_images(flags.images)
    inputs = run.get("inputs", {})
    if for_source_domain(source, run):
        raise ExportError(
            f"{source.path} is for images of the source domain, and the run has those of the "
            "target; give --images of the source domain"
        )
    if not isinstance(inputs.get("images"), str):
        raise ExportError("these weights have no run beside them; give --images to compare on")
    try:
        images = open_images(inputs["images"])
    except DataError as error:
        raise ExportError(f"the gate needs target images: {error}; give --images") from None
    if source.path is None or not _are_recorded(images, source.path.parent, inputs):
        raise ExportError(
            f"{inputs['images']} does not hold the images that the run recorded; give --images"
        )
    return images


def _windows(source: LoadedModel, run: dict[str, Any], flags: ExportFlags) -> SlidingWindows | None:
    """How images are cut: as asked for, else as the run cut its images, where they are used.

    Raises:
        DataError: the run's record is damaged.
    """
    if flags.windows is not None or flags.images is not None or for_source_domain(source, run):
        return flags.windows
    windows = recorded_windows(run.get("inputs", {}))
    if windows is not None:
        logger.warning(
            "gate: windows %s, as the run saw them; a device resizes whole frames: crop or scale "
            "them alike",
            windows.text(),
        )
    return windows


def _are_recorded(images: ImageSet, run_dir: Path, inputs: dict[str, Any]) -> bool:
    """Whether a sample of the images has the recorded hashes; of old runs, all of them."""
    spec = inputs.get("spec")
    size_hw = spec.get("input_hw") if isinstance(spec, dict) else None
    recorded = str(inputs.get("target_sha256", ""))
    if not isinstance(size_hw, list) or len(size_hw) != 2 or min(map(_side, size_hw)) < 1:
        return False
    size_hw = (int(size_hw[0]), int(size_hw[1]))
    hashes = _recorded_hashes(run_dir)
    if hashes is None:
        cut = windows_of(images, recorded_windows(inputs), size_hw)
        target = TargetImages(cut, size_hw, skip_bad=True, memory_bytes=0)
        return target.matches(recorded)
    whole = hashlib.sha256("".join(hashes.values()).encode()).hexdigest()
    windows = recorded_windows(inputs)
    listed = {listed_name(sample.name): sample for sample in images.samples}
    of_image = {name: whole_name(name) if windows else name for name in hashes}
    if whole != recorded or not listed.keys() >= set(of_image.values()):
        return False
    shown = [list(hashes)[number] for number in _spread(np.arange(len(hashes)), _HASHED)]
    chosen = tuple(listed[name] for name in dict.fromkeys(of_image[name] for name in shown))
    cut = windows_of(replace(images, samples=chosen), windows, size_hw)
    by_name = {listed_name(sample.name): sample for sample in cut.samples}
    if not by_name.keys() >= set(shown):
        return False
    subset = replace(images, samples=tuple(by_name[name] for name in shown))
    return all(
        hashlib.sha256(image_bytes(resize_image(loaded.image, size_hw))).hexdigest()
        == hashes[listed_name(loaded.name)]
        for loaded in read_all(subset, None)
    )


def _side(value: Any) -> int:
    """A recorded number of pixels; 0 of anything else."""
    return value if isinstance(value, int) else 0


_HASHED = 48  # images whose hashes are compared: as many as a gate and a calibration read


def _recorded_hashes(run_dir: Path) -> dict[str, str] | None:
    """Hash of each target image of a run, by name; None of runs without the file."""
    try:
        lines = read_text(run_dir / HASHES_FILE).split("\n")
    except (OSError, ValueError):
        return None
    pairs = (line.split("  ", 1) for line in lines)
    return {pair[1]: pair[0] for pair in pairs if len(pair) == 2}


def _frames(
    source: LoadedModel, images: ImageSet, thresholds: Thresholds, calibrated: bool
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Frames for the gate, and others to calibrate on; each spread over the set."""
    numbers = np.arange(len(images))
    most = thresholds.gate_images
    if calibrated:  # a small set is shared between the two
        most = min(most, max(1, len(numbers) // 2))
    gate = _spread(numbers, most)
    if not calibrated:
        return _read(source, images, gate), []
    others = _spread(np.setdiff1d(numbers, gate), thresholds.calibration_images)
    return _read(source, images, gate), _read(source, images, others)


def _spread(numbers: np.ndarray, most: int) -> np.ndarray:
    if len(numbers) <= most:
        return numbers
    return numbers[np.linspace(0, len(numbers) - 1, most).astype(int)]


def _read(source: LoadedModel, images: ImageSet, numbers: np.ndarray) -> list[np.ndarray]:
    """Images (H, W, 3) uint8 at the input size; damaged ones are left out with a warning."""
    if not len(numbers):
        return []
    subset = replace(images, samples=tuple(images.samples[index] for index in numbers))
    return [
        np.ascontiguousarray(resize_image(loaded.image, source.spec.input_hw))
        for loaded in read_all(subset, None, skip_bad=True)
    ]


def _labelled(
    source: LoadedModel, validation: Validation, windows: SlidingWindows | None
) -> LabelledImages:
    """Images and label maps at the input size; damaged ones are left out with a warning.

    Raises:
        DataError: they cannot be scored.
    """
    space = source.spec.output_space
    size_hw = source.spec.input_hw
    images = windows_of(validation.open(space), windows, size_hw)
    bar = progress_bar("read validation images", len(images))
    return LabelledImages(images, space, size_hw, skip_bad=True, progress=bar)
