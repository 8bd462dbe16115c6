"""sfda-edge demo: the whole way on the packaged data, with scores and a page to look at."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from runtime.backends import open_backend
from runtime.bundle.manifest import read_manifest
from runtime.output import say
from runtime.overlay import Overlay
from runtime.packaged import CLIP, CLIP_DIR
from runtime.pipeline import Pipeline
from runtime.sinks.scoring import ScoringSink
from runtime.sinks.video import VideoSink
from runtime.sources.grammar import open_source
from runtime.stats import Snapshot
from sfda_edge.adaptation import run as adapt
from sfda_edge.errors import RunError
from sfda_edge.evaluation import run as evaluate
from sfda_edge.evaluation.evaluate import Evaluation
from sfda_edge.labels.label_spaces import LABEL_SPACES
from sfda_edge.models.source_model import ModelFlags
from sfda_edge.packaged import MODEL_DIR
from sfda_edge.report.page import Page, Section, picture_url, write_page
from sfda_edge.runs.directory import RUN_FILE

logger = logging.getLogger(__name__)
Export = Callable[[ModelFlags, Path], Any]
PAGE_FILE = "demo.html"


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demo found.

    Attributes:
        before, after: scores of the source and the adapted model on the labelled clip.
        streamed_miou: of the exported bundle on the same clip, in the running stream.
        stream: figures of that stream.
        agreement: of the bundle with the adapted model, share of pixels.
        seconds: from start to end.
    """

    before: Evaluation
    after: Evaluation
    streamed_miou: float
    stream: Snapshot
    agreement: float
    seconds: float


def run(out_dir: Path, export: Export) -> DemoResult:
    """Run the demo into ``out_dir`` and print its table.

    Args:
        out_dir: a new folder; the numbered run inside lets the demo be run again.
        export: makes a bundle of a run; handed in, as this package does not know ``export``.

    Raises:
        SfdaEdgeError, StreamError: something that the user has to change.
    """
    started_s = time.monotonic()
    run_dir = _fresh_run_dir(out_dir)
    source, adapted = ModelFlags(MODEL_DIR), ModelFlags(run_dir)
    adapt.run(adapt.AdaptRequest(ModelFlags(None), out_dir=run_dir))
    clip = evaluate.PACKAGED_IMAGES
    before = evaluate.run(evaluate.EvaluateRequest(source, clip, out_dir=out_dir / "before"))
    after = evaluate.run(evaluate.EvaluateRequest(adapted, clip, out_dir=out_dir / "after"))
    exported = export(adapted, out_dir / "bundle")
    streamed_miou, figures = _stream(out_dir / "bundle", out_dir / "overlay.mp4")
    result = DemoResult(
        before,
        after,
        streamed_miou,
        figures,
        exported.parity.label_agreement,
        time.monotonic() - started_s,
    )
    _write_page(out_dir, result)
    say(_text(out_dir, result))
    return result


def _fresh_run_dir(out_dir: Path) -> Path:
    if out_dir.exists() and not out_dir.is_dir():
        raise RunError(f"{out_dir} is a file; choose another --out")
    taken = sorted(out_dir.glob(f"run*/{RUN_FILE}")) if out_dir.exists() else []
    return out_dir / f"run{len(taken) + 1}"


def _stream(bundle_dir: Path, video: Path) -> tuple[float, Snapshot]:
    """Stream the labelled clip through the bundle, as runtime.stream does."""
    manifest = read_manifest(bundle_dir)
    labels = LABEL_SPACES["camvid"]
    scoring = ScoringSink(CLIP_DIR / "labels", manifest.label_space, labels.ignore_index)
    with (
        open_source(str(CLIP)) as source,
        open_backend("onnxruntime", bundle_dir, manifest) as backend,
    ):
        saved = VideoSink(video, Overlay(manifest.label_space), source.fps, source.live)
        pipeline = Pipeline(source, backend, manifest.input_hw, [scoring, saved])
        try:
            pipeline.run()
        finally:
            saved.close()
    figures = pipeline.stats.snapshot(pipeline.frames_read, pipeline.frames_dropped)
    return scoring.confusion.scores().miou, figures


def _rows(result: DemoResult) -> list[list[str]]:
    before, after = result.before.scores, result.after.scores
    rows = [["", "source", "adapted", "change"]]
    pairs = [
        ("mIoU", before.miou, after.miou),
        ("pixel accuracy", before.pixel_accuracy, after.pixel_accuracy),
    ]
    names = result.before.label_space.names
    pairs += [(f"IoU {n}", b, a) for n, b, a in zip(names, before.iou, after.iou, strict=True)]
    for title, first, second in pairs:
        if not np.isnan([first, second]).any():
            change = 100 * (second - first)
            rows.append([title, f"{100 * first:.1f}", f"{100 * second:.1f}", f"{change:+.1f}"])
    return rows


def _text(out_dir: Path, result: DemoResult) -> str:
    table = [f"{r[0]:<18}{r[1]:>8}{r[2]:>9}{r[3]:>8}" for r in _rows(result)]
    infer = result.stream.stage_ms["infer"]
    return "\n".join(
        [
            "StreetSynth dusk clip, per cent:",
            *table,
            f"bundle: {100 * result.agreement:.2f} % label agreement with the adapted model",
            f"stream: mIoU {100 * result.streamed_miou:.1f}, {result.stream.fps:.1f} FPS with "
            f"overlay video, inference p50 {infer[0]:.1f} ms, p99 {infer[2]:.1f} ms",
            f"{result.seconds:.0f} s in all; look at {out_dir / PAGE_FILE} and "
            f"{out_dir / 'overlay.mp4'}",
        ]
    )


def _write_page(out_dir: Path, result: DemoResult) -> None:
    infer = result.stream.stage_ms["infer"]
    sections = [
        Section(
            "Scores on the labelled dusk clip",
            "Per cent. Labels are used here alone.",
            table=_rows(result),
        ),
        Section(
            "Before: the source model, trained on clear days",
            picture=_picture(out_dir / "before" / "contact_sheet.jpg"),
        ),
        Section(
            "After: adapted to unlabeled dusk frames",
            picture=_picture(out_dir / "after" / "contact_sheet.jpg"),
        ),
        Section(
            "The exported bundle, streamed",
            table=[
                ["", ""],
                ["label agreement with the adapted model", f"{100 * result.agreement:.2f} %"],
                ["mIoU in the stream", f"{100 * result.streamed_miou:.1f}"],
                ["FPS, overlay video included", f"{result.stream.fps:.1f}"],
                ["inference p50 / p99", f"{infer[0]:.1f} / {infer[2]:.1f} ms"],
            ],
        ),
    ]
    introduction = (
        "A small network that has only seen StreetSynth streets on clear days, adapted to the same "
        "kind of streets at dusk without a label and without its training data, exported to ONNX "
        "and run on a video."
    )
    write_page(out_dir / PAGE_FILE, Page("sfda-edge demo", introduction, sections))


def _picture(path: Path) -> str:
    return picture_url(np.asarray(Image.open(path).convert("RGB")))
