"""Draws the README's picture for ``benchmarks.before_after``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from runtime.overlay import Overlay
from sfda_edge.adaptation.request import AdaptRequest
from sfda_edge.adaptation.run import run_adaptation
from sfda_edge.data import ImageSet, open_images
from sfda_edge.data.loading import read_all
from sfda_edge.evaluation import Predictor, evaluate
from sfda_edge.models.source_model import ModelRequest, load_source
from sfda_edge.report.contact_sheet import contact_sheet, save_picture

FRAMES = (10, 34)
CPU = torch.device("cpu")


def draw(path: Path) -> list[str]:
    """Adapt, score both models on the labelled clip, draw; returns what the columns say."""
    with tempfile.TemporaryDirectory() as folder:
        request = AdaptRequest(model=ModelRequest(), out_dir=Path(folder) / "run")
        adapted = run_adaptation(request).model
    source = load_source(ModelRequest())
    clip = open_images("streetsynth:clip")
    before, after = (Predictor(m, source.spec, CPU) for m in (source.network, adapted.network))
    scores = [100 * evaluate(predictor, clip).scores.miou for predictor in (before, after)]
    titles = ["street at dusk", f"source model: mIoU {scores[0]:.1f}",
              f"adapted: mIoU {scores[1]:.1f}", "labels (only for scoring)"]  # fmt: skip
    picture = contact_sheet(
        _rows(clip, before, after), titles, source.spec.output_space, row_height=180
    )
    save_picture(path, picture)
    return titles


def _rows(clip: ImageSet, before: Predictor, after: Predictor) -> list[list]:
    overlay = Overlay(before.spec.output_space, legend=False)
    rows = []
    for index, loaded in enumerate(read_all(clip, clip.label_space)):
        if index in FRAMES and loaded.label_map is not None:
            label_maps = (before.label_map(loaded.image), after.label_map(loaded.image))
            drawn = [overlay.draw(loaded.image, m) for m in (*label_maps, loaded.label_map)]
            rows.append([loaded.image, *drawn])
    return rows
