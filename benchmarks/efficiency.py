"""python -m benchmarks.efficiency: what reading, drawing and saving cost beside the model.

On one 720p video, in alternating rounds of one run:

    engine                 the model's calls on frames that are decoded and resized already
    engine, spinning       the same while idle threads wait in a loop, as ONNX Runtime's default is
    stream                 file to label map, every frame
    stream, video          with overlay and H.264
    …, spinning            the same two on such threads
    plain loop             OpenCV reads and resizes, ONNX Runtime runs, one after the other
    plain loop, video      with colours blended and OpenCV's mp4v
    stream on openvino, opencv   the same stream on other libraries

Then the age of frames of a live source at 80 % of the stream's rate, and the processor time of a
frame outside the model, with a model that takes none.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.efficiency_parts import (
    NoModel,
    PacedSource,
    SpinningThreads,
    count_decoded,
    write_video,
)
from benchmarks.measuring.arguments import add_rows_file, add_threads
from benchmarks.measuring.closed_loop import time_call
from benchmarks.measuring.distribution import paired_ratio
from benchmarks.measuring.machine import watch
from benchmarks.measuring.program import keep_and_print
from benchmarks.measuring.rows import Invocation, Origin, Row, invocation
from benchmarks.measuring.table import Table, number, share_text, table_of
from benchmarks.peers.video_loops import VideoTask, frames_per_second, opencv
from runtime.arguments import positive
from runtime.backends import Backend, open_backend
from runtime.bundle.manifest import Manifest, read_manifest
from runtime.errors import StreamError
from runtime.images import resize_image
from runtime.output import start_output
from runtime.overlay import Overlay
from runtime.packaged import BUNDLE_DIR
from runtime.pipeline import Pipeline
from runtime.sinks.video import VideoSink
from runtime.sources.grammar import open_source

VIDEO_HW, VIDEO_FPS = (720, 1280), 30
OTHERS = ("openvino", "opencv")
_LIVE_SHARE = 0.8
LIVE = "live, at 80 % of the stream's rate"
PROCESSOR = "processor time, no model"


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.efficiency",
        description="Measure what a stream costs beside its model.",
    )
    parser.add_argument("--bundle", type=Path, default=BUNDLE_DIR, metavar="DIR")
    parser.add_argument("--frames", type=positive, default=150, help="of a round (%(default)s)")
    parser.add_argument("--rounds", type=positive, default=5, help="default: %(default)s")
    add_threads(parser)
    add_rows_file(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    start_output()
    args = build_parser().parse_args(arguments)
    begun = invocation("benchmarks.efficiency", arguments)
    return keep_and_print(lambda: _measure(args, begun), table, args.out)


def _measure(args: argparse.Namespace, begun: Invocation) -> list[Row]:
    """All rounds, then the live source and the processor time."""
    manifest = read_manifest(args.bundle)
    with tempfile.TemporaryDirectory() as name, watch() as watched:
        bench = _Bench(args, manifest, Path(name))
        try:
            rates = bench.rates(args.rounds)
            figures = _shares(rates)
            figures[LIVE] = bench.live(statistics.median(rates["stream"]))
            figures[PROCESSOR] = bench.processor_ms()
        finally:
            bench.close()
    height, width = manifest.input_hw
    network = manifest.provenance.get("architecture", str(args.bundle))
    origin = Origin(begun, network, f"{width}x{height}", manifest.precision)
    conditions: dict[str, str | int | float] = {
        "video": f"{VIDEO_HW[1]}x{VIDEO_HW[0]}",
        "backend": bench.line,
        "frames_per_round": args.frames,
        "threads": args.threads,
    }
    return origin.rows(figures, watched.machine, conditions)


def _shares(rates: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """Of each way: its rate, and what share of the engine's that is in the same round."""
    return {
        way: {
            "per_second": round(statistics.median(found), 2),
            "share_of_engine": paired_ratio(found, rates["engine"]).record(),
        }
        for way, found in rates.items()
    }


class _Bench:
    """The video, the backends and what is measured with them."""

    def __init__(self, args: argparse.Namespace, manifest: Manifest, folder: Path) -> None:
        self._frames, self._manifest, self._folder = args.frames, manifest, folder
        self._video = folder / "720p.mp4"
        write_video(self._video, VIDEO_HW, VIDEO_FPS, num_frames=args.frames)
        self._backend = open_backend("onnxruntime", args.bundle, manifest, args.threads)
        self.line = self._backend.line()
        self._others: dict[str, Backend] = {}
        for name in OTHERS:
            try:
                self._others[name] = open_backend(name, args.bundle, manifest, args.threads)
            except StreamError as error:
                print(f"{name} is not measured: {error}", file=sys.stderr)
        model = args.bundle / manifest.model_file
        self._spinning = SpinningThreads(model, manifest, args.threads)
        with open_source(str(self._video)) as source:
            frames = iter(source.read, None)
            self._images = [resize_image(f.image, manifest.input_hw) for f in frames if f]

    def close(self) -> None:
        """Free the backends."""
        for backend in (self._backend, *self._others.values()):
            backend.close()

    def rates(self, rounds: int) -> dict[str, list[float]]:
        """Frames a second of each row, one for each round."""
        rows: dict[str, Callable[[], float]] = {
            "engine": partial(self._engine, self._backend.outputs),
            "engine, spinning": partial(self._engine, self._spinning.outputs),
            "stream": partial(self._stream, self._backend),
            "stream, spinning": partial(self._stream, self._spinning),
            "stream, video": partial(self._stream, self._backend, video="ours.mp4"),
            "stream, video, spinning": partial(self._stream, self._spinning, video="ours.mp4"),
            "plain loop": self._plain,
            "plain loop, video": partial(self._plain, video="plain.mp4"),
        }
        for name, backend in self._others.items():
            rows[f"stream on {name}"] = partial(self._stream, backend)
        found: dict[str, list[float]] = {name: [] for name in rows}
        for done in range(rounds):
            for name, row in rows.items():
                found[name].append(row())
            shown = ", ".join(f"{name} {rates[-1]:.1f}" for name, rates in found.items())
            print(f"round {done + 1} of {rounds}: {shown} frames/s", file=sys.stderr)
        return found

    def _engine(self, run: Callable[[np.ndarray], Any]) -> float:
        for image in self._images[:3]:
            run(image)
        start_s = time.perf_counter()
        for image in self._images:
            run(image)
        return len(self._images) / (time.perf_counter() - start_s)

    def _stream(self, backend: Backend, video: str = "") -> float:
        with open_source(str(self._video)) as source:
            pipeline = Pipeline(source, backend, self._manifest.input_hw)
            overlay = Overlay(self._manifest.label_space)
            path = self._folder / video
            sinks = [VideoSink(path, overlay, source.fps, live=False)] if video else []
            pipeline.run(sinks)
            for sink in sinks:
                sink.close()
        return pipeline.snapshot().fps

    def _plain(self, video: str = "") -> float:
        out = self._folder / video if video else None
        task = VideoTask(self._video, self._spinning, self._manifest, out)
        return frames_per_second(opencv, task)

    def live(self, stream_rate: float) -> dict[str, Any]:
        """Age of frames at a rate that can be sustained, beside the engine's time."""
        rate = _LIVE_SHARE * stream_rate
        alone = [time_call(partial(self._backend.outputs, image)) for image in self._images]
        source = PacedSource(self._video, rate)
        pipeline = Pipeline(source, self._backend, self._manifest.input_hw)
        pipeline.run()
        source.close()
        age_ms, engine_ms = pipeline.snapshot().stage_ms["age"][0], float(np.median(alone))
        return {
            "per_second": round(rate, 2),
            "engine_p50_ms": round(engine_ms, 3),
            "age_p50_ms": round(age_ms, 3),
            "age_to_engine": round(age_ms / engine_ms, 4),
            "dropped": pipeline.frames_dropped,
        }

    def processor_ms(self) -> dict[str, float]:
        """Processor time of a frame, all threads: decoding, converting, and the rest."""
        decoding = _processor_ms(partial(count_decoded, self._video, convert=False))
        converting = _processor_ms(partial(count_decoded, self._video, convert=True))
        whole = _processor_ms(self._stream_without_model)
        return {
            "decoding_ms": round(decoding, 3),
            "to_rgb_ms": round(converting - decoding, 3),
            "resize_threads_queues_ms": round(whole - converting, 3),
            "outside_model_and_decoding_ms": round(whole - decoding, 3),
        }

    def _stream_without_model(self) -> int:
        with open_source(str(self._video)) as source:
            pipeline = Pipeline(source, NoModel(self._manifest), self._manifest.input_hw)
            pipeline.run()
        return pipeline.frames_read


def _processor_ms(work: Callable[[], int], times: int = 5) -> float:
    """Median processor time of a frame."""
    found = []
    for _ in range(times):
        start_s = time.process_time()
        count = work()
        found.append(1000 * (time.process_time() - start_s) / count)
    return statistics.median(found)


def table(rows: Sequence[Row]) -> Table:
    """All rows are of one run."""
    first = rows[0]
    conditions = first.conditions
    title = f"{first.network}, {first.size} from {conditions['video']}, {conditions['backend']}"
    columns = ["", "frames/s", "share of the engine's rate, %", "frame age p50, ms (engines)"]
    columns += ["processor a frame beside model and decoding, ms", "decoding, ms"]
    return table_of(rows, title, columns, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    figures = row.figures
    age = number(figures, "age_p50_ms", 1)
    return [
        row.way,
        number(figures, "per_second", 1),
        share_text(figures),
        f"{age} ({number(figures, 'age_to_engine', 2)})" if age else "",
        number(figures, "outside_model_and_decoding_ms", 2),
        number(figures, "decoding_ms", 2),
    ]


if __name__ == "__main__":
    sys.exit(main())
