"""Predicted label maps in the form that Cityscapes' server takes: labelIds at the image's size."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
from PIL import Image

from runtime.files import read_text
from sfda_edge.cli.options import windows
from sfda_edge.data import open_images
from sfda_edge.data.datasets.cityscapes import LABEL_IDS, SPACE
from sfda_edge.data.loading import read_all
from sfda_edge.errors import RecipeError
from sfda_edge.evaluation import Predictor
from sfda_edge.models.source_model import ModelRequest, load_source
from sfda_edge.runs.device import choose_device
from sfda_edge.runs.files import write_atomically, write_text
from sfda_edge.runs.progress import progress_bar

logger = logging.getLogger(__name__)


def write_server_labels(
    run: Path, images_spec: str, out_dir: Path, args: argparse.Namespace
) -> None:
    """Write ``CITY_SEQUENCE_FRAME.png`` for each image of Cityscapes; those of this model stay.

    Args:
        run: the run directory of an adapted model, of classes of Cityscapes.
        images_spec: as ``open_images`` takes it.
        out_dir: for the label maps.
        args: of the command line: device, windows, and whether damaged images are left out.

    Raises:
        RecipeError: the folder has label maps of another model.
    """
    source = load_source(ModelRequest(run))
    _require_own(out_dir, source.sha256)
    device = choose_device(args.device)
    predictor = Predictor(source.network, source.spec, device, windows=windows(args))
    images = open_images(images_spec)
    out_dir.mkdir(parents=True, exist_ok=True)
    numbers = dict(zip(SPACE.names, LABEL_IDS, strict=True))
    to_ids = np.array([numbers[name] for name in source.class_names], np.uint8)
    bar = progress_bar("label maps for the server", len(images))
    for loaded in bar(read_all(images, None, args.skip_bad)):
        stem = Path(loaded.name).name.removesuffix("_leftImg8bit.png")
        path = out_dir / f"{stem}.png"
        if not path.exists():
            _write(path, to_ids[predictor.label_map(loaded.image)])
    logger.info("label maps for the server: %s", out_dir)


def _require_own(out_dir: Path, weights_sha256: str) -> None:
    """See that label maps which are there are of the model with these weights.

    Raises:
        RecipeError: they are not, or nobody knows.
    """
    path = out_dir.with_name(f"{out_dir.name}.sha256")
    made_of = read_text(path).strip() if path.exists() else ""
    if made_of != weights_sha256 and out_dir.exists() and any(out_dir.iterdir()):
        raise RecipeError(f"{out_dir} has label maps of another model; remove it to write new ones")
    write_text(path, weights_sha256 + "\n")


def _write(path: Path, label_map: np.ndarray) -> None:
    picture = Image.fromarray(label_map)
    write_atomically(path, lambda part: picture.save(part, "PNG"))
