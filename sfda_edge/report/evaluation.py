"""The files of an evaluation: JSON and pictures."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np

from runtime.bundle.labels import LabelSpace
from runtime.overlay import Overlay
from sfda_edge.data.loading import LoadedImage
from sfda_edge.errors import RunError
from sfda_edge.evaluation import Evaluation
from sfda_edge.report.confusion_picture import save_confusion_picture
from sfda_edge.report.contact_sheet import contact_sheet, save_picture
from sfda_edge.runs.files import write_text

logger = logging.getLogger(__name__)
_PICTURES = 6


class SheetCollector:
    """Keeps a few images spread over the set, as image | prediction | label.

    Args:
        space: the predicted classes.
        num_images: of the set.
    """

    def __init__(self, space: LabelSpace, num_images: int) -> None:
        self._overlay = Overlay(space, legend=False)
        wanted = np.linspace(0, num_images - 1, min(_PICTURES, num_images))
        self._wanted = {int(index) for index in wanted}
        self._count = 0
        self.rows: list[list[np.ndarray]] = []

    def __call__(self, loaded: LoadedImage, label_map: np.ndarray) -> None:
        """Take one image and its prediction."""
        if self._count in self._wanted and loaded.label_map is not None:
            draw = self._overlay.draw
            predicted, truth = draw(loaded.image, label_map), draw(loaded.image, loaded.label_map)
            self.rows.append([loaded.image, predicted, truth])
        self._count += 1


def make_folder(out_dir: Path) -> None:
    """Make the folder, before the evaluation takes its time.

    Raises:
        RunError: it cannot be made.
    """
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {out_dir}: {error.strerror}") from None


def write_evaluation(
    out_dir: Path, evaluation: Evaluation, sheet: SheetCollector, about: dict[str, str]
) -> None:
    """Write ``evaluation.json``, ``confusion.png`` and ``contact_sheet.jpg``.

    Args:
        out_dir: exists.
        evaluation: the scores.
        sheet: saw the images.
        about: what was scored, for the record.

    Raises:
        RunError: a file cannot be written.
    """
    record = {**about, **evaluation.record()}
    write_text(out_dir / "evaluation.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
    save_confusion_picture(evaluation, out_dir / "confusion.png")
    picture = contact_sheet(sheet.rows, ["image", "prediction", "label"], evaluation.label_space)
    save_picture(out_dir / "contact_sheet.jpg", picture)
    logger.info("wrote evaluation.json, confusion.png, contact_sheet.jpg to %s (--out)", out_dir)
