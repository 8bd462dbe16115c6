"""Each way from frame to label map: opened, compared with ours, timed in turn."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from benchmarks.measuring.closed_loop import Effort, in_a_circle, measure_in_turn, time_call
from benchmarks.measuring.paced import measure_paced
from benchmarks.peers.frame_ways import Segment, Subject, openers

# Our package first: it keeps OpenVINO from reporting the run.
_BENCHMARK_APP = "import runtime; from openvino.tools.benchmark.main import main; main()"


def measure_frames(
    subject: Subject, frames: list[np.ndarray], effort: Effort, camera_fps: int
) -> dict[str, dict[str, Any]]:
    """Figures of each way that starts here; ``did_not_run`` and the reason of the others.

    Args:
        subject: the weights.
        frames: uint8 RGB (H, W, 3) at the network's size.
        effort: how much is measured.
        camera_fps: each way then answers a camera of this rate for as many seconds.
    """
    with ExitStack() as stack:
        opened, figures = _open_all(subject, frames[0], stack)
        if not opened:
            return figures
        first = next(iter(opened))
        reference = [opened[first](frame) for frame in frames]
        for name, segment in opened.items():
            same = [(segment(f) == r).mean() for f, r in zip(frames, reference, strict=True)]
            figures[name]["same_labels"] = round(float(np.mean(same)), 6)
        calls = {name: in_a_circle(segment, frames) for name, segment in opened.items()}
        for name, measured in measure_in_turn(calls, effort, first).items():
            figures[name] |= measured.record()
        for name, call in calls.items():
            sent = max(1, round(camera_fps * effort.min_seconds))
            figures[name]["paced"] = measure_paced(call, camera_fps, sent).record()
    return figures


def _open_all(
    subject: Subject, frame: np.ndarray, stack: ExitStack
) -> tuple[dict[str, Segment], dict[str, dict[str, Any]]]:
    """Each way that starts, and how long opening it and its first call took."""
    opened: dict[str, Segment] = {}
    figures: dict[str, dict[str, Any]] = {}
    for name, opener in openers(subject, stack).items():
        start_s = time.perf_counter()
        try:
            opened[name] = opener()
            load_s = time.perf_counter() - start_s
            first_ms = time_call(partial(opened[name], frame))
        except Exception as error:  # each library has its own; the others are still measured
            opened.pop(name, None)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            figures[name] = {"did_not_run": reason}
            print(f"{name} is not measured: {reason}", file=sys.stderr)
            continue
        figures[name] = {"load_s": round(load_s, 3), "first_call_ms": round(first_ms, 3)}
    return opened, figures


def measure_benchmark_app(subject: Subject, seconds: float) -> dict[str, Any]:
    """The median that OpenVINO's own benchmark_app prints for our graph.

    It runs alone, after the others, with random input and without reading the result: the fastest
    that OpenVINO can be on this graph, and no more.
    """
    words = ["-m", str(subject.bundle_dir / subject.manifest.model_file), "-d", "CPU"]
    words += ["-infer_precision", "f32", "-t", str(max(1, round(seconds)))]
    height, width = subject.manifest.input_hw
    words += ["-shape", f"[1,{height},{width},3]"]
    # It takes a number of threads without a hint only; the hint means one stream, too.
    words += ["-hint", "none", "-nstreams", "1", "-nthreads", str(subject.num_threads)]
    done = subprocess.run(
        [sys.executable, "-c", _BENCHMARK_APP, *words], capture_output=True, text=True, check=False
    )
    found = re.search(r"Median:\s+([\d.]+) ms", done.stdout)
    if done.returncode or found is None:
        lines = (done.stderr or done.stdout).strip().splitlines()
        return {"did_not_run": lines[-1] if lines else f"exit code {done.returncode}"}
    return {"p50_ms": float(found.group(1))}
