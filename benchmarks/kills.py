"""Kill recordings of a live camera at random moments, and count what can be read of them."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.rtsp_camera import FPS, MOVING, RtspCamera
from runtime.errors import StreamError

MOST_LOST_S = 1.0
_FIRST_RESULT_S = 60.0


def kill_recordings(number: int) -> dict[str, Any]:
    """Kill recordings of a live camera, and count what can be read of each."""
    lost: dict[str, list[float]] = {"mp4": [], "mkv": [], "mcap": []}
    readers: dict[str, Callable[[Path], int]] = {
        "mp4": _video_frames,
        "mkv": _video_frames,
        "mcap": _recorded_frames,
    }
    with RtspCamera(320, 240, MOVING) as camera:
        for index in range(number):
            video = ("mp4", "mkv")[index % 2]
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                written = _killed(camera, folder, video)
                for kind in (video, "mcap"):
                    readable = readers[kind](folder / f"out.{kind}")
                    lost[kind].append(round((written - readable) / FPS, 3))
                    print(f"{kind}: {readable} of {written} frames", file=sys.stderr)
    worst = {kind: max(seconds) for kind, seconds in lost.items() if seconds}
    exceeded = [kind for kind, seconds in worst.items() if seconds > MOST_LOST_S]
    return {"kills": number, "lost_s": lost, "worst_lost_s": worst, "exceeded": exceeded}


def _killed(camera: RtspCamera, folder: Path, video: str) -> int:
    """Record until a random moment; the number of results that were written by then."""
    lines = folder / "out.jsonl"
    command = [sys.executable, "-m", "runtime.stream", camera.url, "--jsonl", str(lines)]
    command += ["--save", str(folder / f"out.{video}"), "--record", str(folder / "out.mcap")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for_results(process, lines)
            time.sleep(random.uniform(3, 9))
        finally:
            process.kill()
    return lines.read_text().count("\n")


def _wait_for_results(process: subprocess.Popen[bytes], lines: Path) -> None:
    end_s = time.monotonic() + _FIRST_RESULT_S
    while not (lines.exists() and lines.stat().st_size):
        if process.poll() is not None:
            raise StreamError("the stream ended before its first result")
        if time.monotonic() > end_s:  # one that reconnects does not end
            raise StreamError(f"the stream has no result after {_FIRST_RESULT_S:g} s")
        time.sleep(0.02)


def _video_frames(path: Path) -> int:
    import av

    count = 0
    with contextlib.suppress(av.error.FFmpegError), av.open(str(path)) as container:
        for _ in container.decode(video=0):
            count += 1
    return count


def _recorded_frames(path: Path) -> int:
    from runtime.sources.replay import ReplaySource

    with ReplaySource(path) as source:
        source.interrupt()  # as fast as it can be read
        return sum(1 for _ in iter(source.read, None))
