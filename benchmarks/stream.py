"""python -m benchmarks.stream: a bundle on a video, engine only against the whole pipeline.

Both are measured in one process, in turn: the engine's calls on the same frames, already decoded
and resized; then the pipeline from file to label map. Their ratio says what decoding, resizing,
threads and queues cost.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring.closed_loop import time_call
from benchmarks.measuring.distribution import Distribution, distribution
from benchmarks.measuring.machine import machine_line, machine_record
from benchmarks.records import output_file, write_record
from runtime.arguments import natural, positive
from runtime.backends import Backend, open_backend
from runtime.bundle.manifest import Manifest, read_manifest
from runtime.credentials import without_credentials
from runtime.errors import StreamError
from runtime.frames import Frame, Segmentation
from runtime.images import resize_image
from runtime.output import print_error, start_output
from runtime.packaged import BUNDLE_DIR, CLIP_DIR
from runtime.pipeline import WARM_UP_RUNS, Pipeline
from runtime.sinks.scoring import ScoringSink
from runtime.sources.grammar import open_source
from runtime.stats import Snapshot

MAX_FRAMES = 300
CLIP_IGNORE_INDEX = 11  # CamVid's


@dataclass(frozen=True, eq=False)
class Round:
    """One measurement of both.

    Attributes:
        engine: the backend's calls alone.
        pipeline: figures of the running pipeline.
        miou: in the stream, None without labels.
    """

    engine: Distribution
    pipeline: Snapshot
    miou: float | None

    @property
    def ratio(self) -> float:
        """End-to-end throughput as a share of the engine's alone."""
        return self.pipeline.fps / self.engine.per_second

    def line(self) -> str:
        """Both rates, for people who wait."""
        return f"engine {self.engine.per_second:.1f}, stream {self.pipeline.fps:.1f} frames/s"


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
    parser.add_argument(
        "--threads", type=natural, default=0, help="of one inference (0: automatic)"
    )
    parser.add_argument("--rounds", type=positive, default=3, help="of engine and pipeline (3)")
    parser.add_argument(
        "--out", type=output_file, metavar="STEM", help="write STEM.json and STEM.md"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    start_output()
    args = build_parser().parse_args(arguments)
    try:
        record = measure(args)
    except StreamError as error:
        print_error(error)
        return 2
    print(text(record))
    if args.out is not None:
        write_record(Path(f"{args.out}.json"), record)
        Path(f"{args.out}.md").write_text(markdown(record))
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measure all rounds and return the median one as a record."""
    manifest = read_manifest(args.bundle)
    if args.source == "streetsynth" and args.labels is None:
        args.labels, args.ignore_index = CLIP_DIR / "labels", CLIP_IGNORE_INDEX
    machine = machine_record()
    with open_backend(args.backend, args.bundle, manifest, args.threads) as backend:
        images = _frames(args.source, manifest.input_hw)
        rounds: list[Round] = []
        for number in range(1, args.rounds + 1):
            rounds.append(_round(args, manifest, backend, images))
            print(f"round {number} of {args.rounds}: {rounds[-1].line()}", file=sys.stderr)
        name = backend.line()
    middle = sorted(rounds, key=lambda one: one.ratio)[len(rounds) // 2]
    height, width = manifest.input_hw
    return {
        "source": without_credentials(args.source),
        "bundle": manifest.provenance.get("architecture", str(args.bundle)),
        "size": f"{width}x{height}",
        "precision": manifest.precision,
        "backend": name,
        "warm_up_calls": WARM_UP_RUNS,
        "rounds": args.rounds,
        "frames": middle.pipeline.segmented,
        "engine": middle.engine.record(),
        "end_to_end": middle.pipeline.record(),
        "ratio": round(middle.ratio, 4),
        "ratios": [round(one.ratio, 4) for one in rounds],
        "miou": None if middle.miou is None else round(middle.miou, 5),
        "machine": machine,
    }


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
    return Round(distribution(durations), snapshot, _miou(args, manifest, kept.results))


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


def _rows(record: dict[str, Any]) -> list[tuple[str, str]]:
    engine, whole = record["engine"], record["end_to_end"]
    age, infer = whole["stage_ms"]["age"], whole["stage_ms"]["infer"]
    rows = [
        (
            "engine only",
            f"{engine['per_second']:.1f} frames/s, p50 {engine['p50_ms']:.1f} ms, "
            f"p99 {engine['p99_ms']:.1f} ms",
        ),
        (
            "end to end",
            f"{whole['fps']:.1f} frames/s, inference p50 {infer['p50']:.1f} ms, "
            f"frame age p50 {age['p50']:.1f} ms, p99 {age['p99']:.1f} ms",
        ),
        (
            "ratio",
            f"{100 * record['ratio']:.1f} % (rounds: "
            + ", ".join(f"{100 * r:.1f}" for r in record["ratios"])
            + ")",
        ),
        (
            "frames",
            f"{record['frames']} of {record['source']}, {record['rounds']} rounds, "
            f"{record['warm_up_calls']} warm-up calls",
        ),
    ]
    if record["miou"] is not None:
        rows.insert(3, ("mIoU", f"{100 * record['miou']:.1f} on the same frames"))
    return rows


def _title(record: dict[str, Any]) -> str:
    return f"{record['bundle']}, {record['size']}, {record['precision']}, {record['backend']}"


def text(record: dict[str, Any]) -> str:
    """The record for a terminal."""
    rows = [f"{name:<14}{value}" for name, value in _rows(record)]
    return "\n".join([_title(record), *rows, machine_line(record["machine"])])


def markdown(record: dict[str, Any]) -> str:
    """The record as a Markdown section."""
    rows = [f"| {name} | {value} |" for name, value in _rows(record)]
    head = [f"### {_title(record)}", "", "| | |", "|---|---|"]
    return "\n".join([*head, *rows, "", machine_line(record["machine"]), ""])


if __name__ == "__main__":
    sys.exit(main())
