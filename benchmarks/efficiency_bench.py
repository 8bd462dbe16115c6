"""What ``benchmarks.efficiency`` measures: the video, the backends, and each way through them."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
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
from benchmarks.measuring.closed_loop import time_call
from benchmarks.peers.video_loops import VideoTask, frames_per_second, opencv
from runtime.backends import Backend, open_backend
from runtime.bundle.manifest import Manifest
from runtime.errors import StreamError
from runtime.images import resize_image
from runtime.overlay import Overlay
from runtime.pipeline import Pipeline
from runtime.sinks.video import VideoSink
from runtime.sources.grammar import open_source

VIDEO_HW, VIDEO_FPS = (720, 1280), 30
OTHERS = ("openvino", "opencv")
LIVE_SHARE = 0.8


class Bench:
    """The video, the backends and what is measured with them."""

    def __init__(self, args: argparse.Namespace, manifest: Manifest, folder: Path) -> None:
        self._manifest, self._folder = manifest, folder
        self._video = folder / "720p.mp4"
        write_video(self._video, VIDEO_HW, VIDEO_FPS, num_frames=args.frames)
        self._backend = open_backend("onnxruntime", args.bundle, manifest, args.threads)
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

    def backend_of(self, way: str) -> str:
        """What runs the model in a way, in one line."""
        if "spinning" in way or "plain" in way:
            return f"{self._spinning.library}, threads that spin"
        for name, backend in self._others.items():
            if way == f"stream on {name}":
                return backend.line()
        return self._backend.line()

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
        """With opening and closing, as the plain loop is timed."""
        start_s = time.perf_counter()
        with open_source(str(self._video)) as source:
            pipeline = Pipeline(source, backend, self._manifest.input_hw)
            overlay = Overlay(self._manifest.label_space)
            path = self._folder / video
            sinks = [VideoSink(path, overlay, source.fps, live=False)] if video else []
            pipeline.run(sinks)
            for sink in sinks:
                sink.close()
        return pipeline.frames_read / (time.perf_counter() - start_s)

    def _plain(self, video: str = "") -> float:
        out = self._folder / video if video else None
        task = VideoTask(self._video, self._spinning, self._manifest, out)
        return frames_per_second(opencv, task)

    def live(self, stream_rate: float) -> dict[str, Any]:
        """Age of frames at a rate that can be sustained, beside the engine's time."""
        rate = LIVE_SHARE * stream_rate
        alone = [time_call(partial(self._backend.outputs, image)) for image in self._images]
        source = PacedSource(self._video, rate)
        pipeline = Pipeline(source, self._backend, self._manifest.input_hw)
        pipeline.run()
        source.close()
        age_ms, engine_ms = pipeline.snapshot().stage_ms["age"][0], float(np.median(alone))
        return {
            "asked_per_second": round(rate, 2),
            "engine_p50_ms": round(engine_ms, 3),
            "age_p50_ms": round(age_ms, 3),
            "age_to_engine": round(age_ms / engine_ms, 4),
            "read": pipeline.frames_read,
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
