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
from benchmarks.peers import OURS
from benchmarks.peers.frame_ways import Subject
from benchmarks.peers.video_loops import LOOPS, VideoTask, frames_per_second
from runtime.backends import open_backend
from sfda_edge.errors import DataError

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
    tasks = {}
    for part, model in ((MODEL, backend), (NO_MODEL, NoModel(subject.manifest))):
        for name in LOOPS:
            out = folder / f"{name} {part}.mp4"
            tasks[f"{name}: {part}"] = VideoTask(video, model, subject.manifest, out)
    with backend:
        figures, calls = _trials(tasks)
        rates = _in_turn(calls, rounds)
    for way, found in rates.items():
        ours = rates[f"{OURS}: {way.partition(': ')[2]}"]
        # A ratio of times, as everywhere: above 1 is slower than ours.
        ratio = paired_ratio(ours, found)
        figures[way] = {"per_second": round(statistics.median(found), 2), "ratio": ratio.record()}
    return figures


def _trials(
    tasks: dict[str, VideoTask],
) -> tuple[dict[str, dict[str, Any]], dict[str, Callable[[], float]]]:
    """Run each loop once, which warms it up; those that run here, and why others do not.

    Raises:
        DataError: ours does not read the video.
    """
    figures: dict[str, dict[str, Any]] = {}
    calls: dict[str, Callable[[], float]] = {}
    frames = None
    for way, task in tasks.items():
        loop = LOOPS[way.partition(":")[0]]
        try:
            count = loop(task)
        except Exception as error:  # a library that is missing, or of another version
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            if frames is None:
                raise DataError(f"{task.video} cannot be measured: {reason}") from None
            figures[way] = {"did_not_run": reason}
            print(f"{way} is not measured: {reason}", file=sys.stderr)
            continue
        frames = count if frames is None else frames
        if count != frames:
            figures[way] = {"did_not_run": f"it read {count} of {frames} frames"}
            continue
        figures[way] = {}
        calls[way] = partial(frames_per_second, loop, task)
    return figures, calls


def _in_turn(calls: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {way: [] for way in calls}
    for _ in range(rounds):
        for way, call in calls.items():
            rates[way].append(call())
    return rates
