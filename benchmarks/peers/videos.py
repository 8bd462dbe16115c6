"""Each loop from video file to video file, in rounds that alternate."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.efficiency_parts import NoModel, write_video
from benchmarks.measuring.distribution import paired_ratio
from benchmarks.peers.frame_ways import Subject
from benchmarks.peers.video_loops import LOOPS, VideoTask, frames_per_second
from runtime.backends import open_backend

VIDEO_HW, VIDEO_FPS, VIDEO_FRAMES = (720, 1280), 30, 60
MODEL, NO_MODEL = "model, colours and saving", "colours and saving"


def measure_videos(
    subject: Subject, folder: Path, rounds: int, video: Path | None
) -> dict[str, dict[str, Any]]:
    """Frames a second of each loop around the same model, and around a model that takes no time.

    Args:
        subject: the weights.
        folder: where videos are written.
        rounds: of every loop, in turn.
        video: to read; the packaged clip, enlarged to 720p, by default.
    """
    if video is None:
        video = folder / "720p.mp4"
        write_video(video, VIDEO_HW, VIDEO_FPS, num_frames=VIDEO_FRAMES)
    backend = open_backend("onnxruntime", subject.bundle_dir, subject.manifest, subject.num_threads)
    with backend:
        calls: dict[str, Callable[[], float]] = {}
        figures: dict[str, dict[str, Any]] = {}
        for part, model in ((MODEL, backend), (NO_MODEL, NoModel(subject.manifest))):
            for name, loop in LOOPS.items():
                out = folder / f"{name} {part}.mp4"
                task = VideoTask(video, model, subject.manifest, out)
                call = partial(frames_per_second, loop, task)
                way = f"{name}: {part}"
                if (reason := _trial(call)) is not None:
                    figures[way] = {"did_not_run": reason}
                    print(f"{way} is not measured: {reason}", file=sys.stderr)
                else:
                    calls[way] = call
        rates = _in_turn(calls, rounds)
    for way, found in rates.items():
        ours = rates[f"{next(iter(LOOPS))}: {way.partition(': ')[2]}"]
        # A ratio of times, as everywhere: above 1 is slower than ours.
        ratio = paired_ratio(ours, found)
        figures[way] = {"per_second": round(statistics.median(found), 2), "ratio": ratio.record()}
    return figures


def _trial(call: Callable[[], object]) -> str | None:
    """Why it cannot run here; the first pass also warms it up."""
    try:
        call()
    except Exception as error:  # a library that is missing, or of another version
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return None


def _in_turn(calls: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {way: [] for way in calls}
    for _ in range(rounds):
        for way, call in calls.items():
            rates[way].append(call())
    return rates
