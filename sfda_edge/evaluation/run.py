"""sfda-edge evaluate: score a model on labelled images, with pictures."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from runtime.overlay import Overlay
from sfda_edge.data import open_images
from sfda_edge.data.loading import LoadedImage
from sfda_edge.errors import RunError
from sfda_edge.evaluation.evaluate import Evaluation, Predictor, evaluate
from sfda_edge.labels.label_spaces import label_space
from sfda_edge.models.inference import choose_device
from sfda_edge.models.source_model import ModelFlags, default_weights, load_source
from sfda_edge.report.confusion_picture import save_confusion_picture
from sfda_edge.report.contact_sheet import contact_sheet, save_picture
from sfda_edge.runs.files import write_text
from sfda_edge.runs.progress import progress_bar

logger = logging.getLogger(__name__)
PACKAGED_IMAGES = "streetsynth:clip"
_PICTURES = 6


@dataclass(frozen=True)
class EvaluateRequest:
    """What the user asked for.

    Attributes:
        flags: the model.
        images: labelled, as ``open_images`` takes them; None for the packaged clip.
        labels_dir: for a plain folder of images.
        label_classes: what the labels mean; None for the model's classes.
        out_dir: for JSON and pictures.
        device: as ``choose_device`` takes it.
        skip_bad: leave damaged samples out.
    """

    flags: ModelFlags
    images: str | None = None
    labels_dir: Path | None = None
    label_classes: str | None = None
    out_dir: Path = Path("evaluation")
    device: str = "auto"
    skip_bad: bool = False


class SheetCollector:
    """Keeps a few images spread over the set, as image | prediction | label."""

    def __init__(self, overlay: Overlay, num_images: int) -> None:
        self._overlay = overlay
        wanted = np.linspace(0, num_images - 1, min(_PICTURES, num_images))
        self._wanted = {int(index) for index in wanted}
        self._seen = 0
        self.rows: list[list[np.ndarray]] = []

    def __call__(self, loaded: LoadedImage, label_map: np.ndarray) -> None:
        """Look at one image and its prediction."""
        if self._seen in self._wanted and loaded.label_map is not None:
            draw = self._overlay.draw
            predicted, truth = draw(loaded.image, label_map), draw(loaded.image, loaded.label_map)
            self.rows.append([loaded.image, predicted, truth])
        self._seen += 1


def run(request: EvaluateRequest) -> Evaluation:
    """Score, write JSON and pictures to ``out_dir``, and return the scores.

    Raises:
        SfdaEdgeError: something that the user has to change.
    """
    weights = default_weights(request.flags.weights, else_packaged=True)
    source = load_source(replace(request.flags, weights=weights))
    if request.images is None:
        logger.info("images: the packaged StreetSynth dusk clip (--images for yours)")
    images = open_images(request.images or PACKAGED_IMAGES, request.labels_dir)
    if request.label_classes is not None:
        images = replace(images, label_space=label_space(request.label_classes))
    _make_folder(request.out_dir)
    predictor = Predictor(source.model, source.spec, choose_device(request.device))
    sheet = SheetCollector(Overlay(source.spec.answer_space, legend=False), len(images))
    bar = progress_bar("evaluate", len(images))
    evaluation = evaluate(predictor, images, request.skip_bad, bar, sheet)
    _write(request.out_dir, evaluation, sheet, f"{source.path}", images.title)
    return evaluation


def _make_folder(out_dir: Path) -> None:
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {out_dir}: {error.strerror}") from None


def _write(
    out_dir: Path, evaluation: Evaluation, sheet: SheetCollector, weights: str, images: str
) -> None:
    record = {"weights": weights, "images": images, **evaluation.record()}
    write_text(out_dir / "evaluation.json", json.dumps(record, indent=1) + "\n")
    save_confusion_picture(evaluation, out_dir / "confusion.png")
    picture = contact_sheet(sheet.rows, ["image", "prediction", "label"], evaluation.label_space)
    save_picture(out_dir / "contact_sheet.jpg", picture)
    logger.info("wrote evaluation.json, confusion.png, contact_sheet.jpg to %s (--out)", out_dir)
