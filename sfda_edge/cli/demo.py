"""sfda-edge demo: everything on the packaged data, with scores and a page to look at."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.glibc_malloc import keep_freed_memory
from runtime.output import print_result
from sfda_edge.cli import options
from sfda_edge.errors import RunError

if TYPE_CHECKING:
    from runtime.stats import Snapshot
    from sfda_edge.evaluation import Evaluation

PAGE_FILE = "demo.html"


def add(commands: Any) -> None:
    """Add the command."""
    parser = options.add_command(
        commands,
        "demo",
        "Adapt, score, export and stream the packaged data: some six minutes on two cores.",
        run,
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo"),
        metavar="DIR",
        help="folder; runs of an earlier demo stay (default: %(default)s)",
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class DemoResult:
    """What the demo measured.

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


def run(args: argparse.Namespace) -> None:
    """Run the command: a numbered run inside ``--out`` lets the demo be run again."""
    keep_freed_memory()
    import sfda_edge
    from export.api import export
    from sfda_edge.packaged import MODEL_DIR

    started_s, out_dir = time.monotonic(), args.out
    adapted = sfda_edge.adapt(out_dir=_fresh_run_dir(out_dir))
    before = sfda_edge.evaluate(MODEL_DIR, out_dir=out_dir / "before")
    after = sfda_edge.evaluate(adapted, out_dir=out_dir / "after")
    bundle = export(adapted, out_dir=out_dir / "bundle")
    streamed_miou, figures = _stream(bundle.path, out_dir / "overlay.mp4")
    result = DemoResult(
        before=before,
        after=after,
        streamed_miou=streamed_miou,
        stream=figures,
        agreement=bundle.result.parity.label_agreement,
        seconds=time.monotonic() - started_s,
    )
    _write_page(out_dir, result)
    print_result(_text(out_dir, result))


def _fresh_run_dir(out_dir: Path) -> Path:
    from sfda_edge.runs.directory import RUN_FILE

    if out_dir.exists() and not out_dir.is_dir():
        raise RunError(f"{out_dir} is a file; choose another --out")
    taken = sorted(out_dir.glob(f"run*/{RUN_FILE}")) if out_dir.exists() else []
    return out_dir / f"run{len(taken) + 1}"


def _stream(bundle_dir: Path, video: Path) -> tuple[float, Snapshot]:
    """Stream the labelled clip through the bundle, as runtime.stream does."""
    from runtime.backends import open_backend
    from runtime.bundle.manifest import read_manifest
    from runtime.overlay import Overlay
    from runtime.packaged import CLIP, CLIP_DIR
    from runtime.pipeline import Pipeline
    from runtime.sinks.scoring import ScoringSink
    from runtime.sinks.video import VideoSink
    from runtime.sources.grammar import open_source
    from sfda_edge.labels.label_spaces import LABEL_SPACES

    manifest = read_manifest(bundle_dir)
    labels = LABEL_SPACES["camvid"]
    scoring = ScoringSink(CLIP_DIR / "labels", manifest.label_space, labels.ignore_index)
    with (
        open_source(str(CLIP)) as source,
        open_backend("onnxruntime", bundle_dir, manifest) as backend,
    ):
        saved = VideoSink(video, Overlay(manifest.label_space), source.fps, source.live)
        pipeline = Pipeline(source, backend, manifest.input_hw)
        try:
            pipeline.run([scoring, saved])
        finally:
            saved.close()
    figures = pipeline.snapshot()
    return scoring.confusion.scores().miou, figures


def _rows(result: DemoResult) -> list[list[str]]:
    import numpy as np

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
            "StreetSynth dusk clip, percent:",
            *table,
            f"bundle: {100 * result.agreement:.2f} % label agreement with the adapted model",
            f"stream: mIoU {100 * result.streamed_miou:.1f}, {result.stream.fps:.1f} FPS with "
            f"overlay video, inference p50 {infer[0]:.1f} ms, p99 {infer[2]:.1f} ms",
            f"{result.seconds:.0f} s in total; open {out_dir / PAGE_FILE} and "
            f"{out_dir / 'overlay.mp4'}",
        ]
    )


def _write_page(out_dir: Path, result: DemoResult) -> None:
    from sfda_edge.report.page import Page, Section, write_page

    infer = result.stream.stage_ms["infer"]
    sections = [
        Section(
            "Scores on the labelled dusk clip",
            "Percent. Labels are used only here.",
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
        "A small network, trained on StreetSynth streets on clear days, is adapted to such streets "
        "at dusk without labels and without its training data, exported to ONNX and run on a video."
    )
    write_page(out_dir / PAGE_FILE, Page("sfda-edge demo", introduction, sections))


def _picture(path: Path) -> str:
    import numpy as np
    from PIL import Image

    from sfda_edge.report.page import picture_url

    return picture_url(np.asarray(Image.open(path).convert("RGB")))
