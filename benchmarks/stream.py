"""python -m benchmarks.stream: a bundle on a video, engine only against the whole pipeline.

Both are measured in one process, in turn: the engine's calls on the same frames, already decoded
and resized; then the pipeline from file to label map. Their ratio says what decoding, resizing,
threads and queues cost.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring.arguments import add_rows_file, add_threads
from benchmarks.measuring.closed_loop import time_call
from benchmarks.measuring.distribution import distribution, paired_ratio
from benchmarks.measuring.machine import watch
from benchmarks.measuring.program import keep_and_print
from benchmarks.measuring.rows import Invocation, Origin, Row, invocation
from benchmarks.measuring.table import Table, number, share_text, table_of
from runtime.arguments import positive
from runtime.backends import Backend, open_backend
from runtime.bundle.manifest import Manifest, read_manifest
from runtime.credentials import without_credentials
from runtime.errors import StreamError
from runtime.frames import Frame, Segmentation
from runtime.images import resize_image
from runtime.output import start_output
from runtime.packaged import BUNDLE_DIR, CLIP_DIR
from runtime.pipeline import WARM_UP_RUNS, Pipeline
from runtime.sinks.scoring import ScoringSink
from runtime.sources.grammar import open_source
from runtime.stats import Snapshot

MAX_FRAMES = 300
CLIP_IGNORE_INDEX = 11  # CamVid's
ENGINE, STREAM = "engine only", "end to end"
# Of the round whose share is the median.
_MIDDLE = ("frames_read", "frames_segmented", "frames_dropped", "stage_ms")


@dataclass(frozen=True, eq=False)
class Round:
    """One measurement of both.

    Attributes:
        engine_ms: the backend's calls alone.
        pipeline: figures of the running pipeline.
        miou: in the stream, None without labels.
    """

    engine_ms: Sequence[float]
    pipeline: Snapshot
    miou: float | None

    @property
    def engine_rate(self) -> float:
        """Calls a second of the engine alone."""
        return 1000 / statistics.mean(self.engine_ms)

    def line(self) -> str:
        """Both rates, for people who wait."""
        return f"engine {self.engine_rate:.1f}, stream {self.pipeline.fps:.1f} frames/s"


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stream", description="Measure a bundle on a video or a folder."
    )
    parser.add_argument(
        "source",
        nargs="?",
        default="streetsynth",
        help="a video, a folder or streetsynth (default)",
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        default=BUNDLE_DIR,
        metavar="DIR",
        help="what sfda-edge export made (default: the packaged one)",
    )
    parser.add_argument("--labels", type=Path, metavar="DIR", help="index images in frame order")
    parser.add_argument(
        "--ignore-index",
        type=int,
        metavar="N",
        help="label that is not scored (default: the bundle's)",
    )
    parser.add_argument("--backend", default="onnxruntime", help="default: %(default)s")
    add_threads(parser)
    parser.add_argument("--rounds", type=positive, default=3, help="of engine and pipeline (3)")
    add_rows_file(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    start_output()
    args = build_parser().parse_args(arguments)
    begun = invocation("benchmarks.stream", arguments)
    return keep_and_print(lambda: _measure(args, begun), table, args.out)


def _measure(args: argparse.Namespace, begun: Invocation) -> list[Row]:
    manifest = read_manifest(args.bundle)
    of_the_clip = read_manifest(BUNDLE_DIR).label_space.names
    if (
        args.source == "streetsynth"
        and args.labels is None
        and manifest.label_space.names == of_the_clip  # labels of other classes say nothing
    ):
        args.labels, args.ignore_index = CLIP_DIR / "labels", CLIP_IGNORE_INDEX
    with (
        open_backend(args.backend, args.bundle, manifest, args.threads) as backend,
        watch() as watched,
    ):
        images = _frames(args.source, manifest.input_hw)
        rounds: list[Round] = []
        for number_of in range(1, args.rounds + 1):
            rounds.append(_round(args, manifest, backend, images))
            print(f"round {number_of} of {args.rounds}: {rounds[-1].line()}", file=sys.stderr)
        conditions: dict[str, str | int | float] = {
            "source": without_credentials(args.source),
            "backend": backend.line(),
            "frames": len(images),
            "threads": args.threads,
            "warm_up_calls": WARM_UP_RUNS,
        }
    height, width = manifest.input_hw
    network = manifest.provenance.get("architecture", str(args.bundle))
    origin = Origin(begun, network, f"{width}x{height}", manifest.precision)
    return origin.rows(_figures(rounds), watched.machine, conditions)


def _figures(rounds: Sequence[Round]) -> dict[str, dict[str, Any]]:
    """Of both ways."""
    engine_rates = [one.engine_rate for one in rounds]
    stream_rates = [one.pipeline.fps for one in rounds]
    share = paired_ratio(stream_rates, engine_rates)
    middle = sorted(rounds, key=lambda one: one.pipeline.fps / one.engine_rate)[len(rounds) // 2]
    whole: dict[str, Any] = {
        "per_second": round(statistics.median(stream_rates), 2),
        "share_of_engine": share.record(),
        **{name: value for name, value in middle.pipeline.record().items() if name in _MIDDLE},
    }
    if middle.miou is not None:
        whole["miou"] = round(middle.miou, 5)
    engine = distribution(*(one.engine_ms for one in rounds)).record()
    engine["per_second"] = round(statistics.median(engine_rates), 2)
    return {ENGINE: engine, STREAM: whole}


def _frames(source: str, input_hw: tuple[int, int]) -> list[np.ndarray]:
    """The source's first frames at the input size; the pipeline runs on the same number."""
    images: list[np.ndarray] = []
    with open_source(source) as frames:
        if frames.live:
            raise StreamError(f"{frames.name} is live; measure on a file instead")
        while len(images) < MAX_FRAMES and (frame := frames.read()) is not None:
            images.append(resize_image(frame.image, input_hw))
    if not images:
        raise StreamError(f"{source} holds no frames")
    return images


class KeptResults:
    """A sink that keeps results: scoring them is not the pipeline's work and is not timed."""

    def __init__(self) -> None:
        self.results: list[Segmentation] = []

    def write(self, result: Segmentation) -> None:
        """Keep the label map; the picture is let go."""
        frame = Frame(result.frame.index, np.zeros(0, np.uint8), result.frame.captured_ns)
        self.results.append(replace(result, frame=frame))

    def close(self) -> None:
        """Nothing is held open."""


def _round(
    args: argparse.Namespace, manifest: Manifest, backend: Backend, images: list[np.ndarray]
) -> Round:
    for image in images[:WARM_UP_RUNS]:
        backend.infer(image)
    durations = [time_call(partial(backend.infer, image)) for image in images]
    kept = KeptResults()
    with open_source(args.source) as source:
        pipeline = Pipeline(source, backend, manifest.input_hw, max_frames=len(images))
        pipeline.run([kept])
    snapshot = pipeline.snapshot()
    return Round(durations, snapshot, _miou(args, manifest, kept.results))


def _miou(
    args: argparse.Namespace, manifest: Manifest, results: list[Segmentation]
) -> float | None:
    if args.labels is None:
        return None
    ignored = manifest.label_space.ignore_index
    ignored = ignored if args.ignore_index is None else args.ignore_index
    scoring = ScoringSink(args.labels, manifest.label_space, ignored)
    for result in results:
        scoring.write(result)
    return scoring.confusion.scores().miou


def table(rows: Sequence[Row]) -> Table:
    """All rows are of one run."""
    first = rows[0]
    title = f"{first.network}, {first.size}, {first.precision}, {first.conditions['backend']}: "
    title += f"{first.conditions['frames']} frames of {first.conditions['source']}"
    columns = ["", "frames/s", "share of the engine's rate, %", "inference p50, ms"]
    columns += ["p99, ms", "frame age p50, ms", "p99, ms", "mIoU"]
    return table_of(rows, title, columns, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    figures = row.figures
    stages = figures.get("stage_ms", {})
    infer, age = stages.get("infer", {}), stages.get("age", {})
    engine = {"p50": figures.get("p50_ms"), "p99": figures.get("p99_ms")}
    return [
        row.way,
        number(figures, "per_second", 1),
        share_text(figures),
        number(infer or engine, "p50", 1),
        number(infer or engine, "p99", 1),
        number(age, "p50", 1),
        number(age, "p99", 1),
        number(figures, "miou", 1, 100),
    ]


if __name__ == "__main__":
    sys.exit(main())
