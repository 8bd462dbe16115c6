"""StreamStats: how fast, how late, how much was lost."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

PERCENTILES = (50, 95, 99)
RECENT_S = 10.0


@dataclass(frozen=True)
class Snapshot:
    """The figures at one moment.

    Attributes:
        read, segmented, dropped: frames since the start.
        seconds: since the first frame was read.
        fps: segmented frames a second, until the last frame or, in a report, since the last report.
        recent_fps: of the last ten seconds.
        stage_ms: percentiles 50, 95 and 99 of each stage, in the order of the pipeline.
        repeated: results that stood for frames that did not come.
        late: segmented frames that were done after their deadline; None without a deadline.
    """

    read: int
    segmented: int
    dropped: int
    seconds: float
    fps: float
    recent_fps: float
    stage_ms: dict[str, tuple[float, float, float]]
    repeated: int = 0
    late: int | None = None

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        stages = {
            stage: {f"p{p}": round(value, 3) for p, value in zip(PERCENTILES, values, strict=True)}
            for stage, values in self.stage_ms.items()
        }
        return {
            "frames_read": self.read,
            "frames_segmented": self.segmented,
            "frames_dropped": self.dropped,
            "frames_late": self.late,
            "results_repeated": self.repeated,
            "seconds": round(self.seconds, 3),
            "fps": round(self.fps, 2),
            "recent_fps": round(self.recent_fps, 2),
            "stage_ms": stages,
        }

    def line(self) -> str:
        """One line for a running stream."""
        age = ""
        if found := self.stage_ms.get("age"):
            age = f"frame age p50 {found[0]:.1f} ms  p99 {found[2]:.1f} ms  "
        counts = f"segmented {self.segmented}  dropped {self.dropped}{self._others('  ')}"
        return f"fps {self.fps:.1f}  {age}{counts}"

    def _others(self, separator: str) -> str:
        """Counts that most streams do not have."""
        late = "" if self.late is None else f"{separator}late {self.late}"
        return late + (f"{separator}repeated {self.repeated}" if self.repeated else "")

    def table(self) -> str:
        """The summary at the end."""
        lines = [
            f"frames: {self.read} read, {self.segmented} segmented, {self.dropped} dropped"
            f"{self._others(', ')}; "
            f"{self.seconds:.1f} s, {self.fps:.1f} FPS",
            f"{'stage':<12}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}",
        ]
        for stage, (p50, p95, p99) in self.stage_ms.items():
            lines.append(f"{stage:<12}{p50:>9.2f}{p95:>9.2f}{p99:>9.2f}")
        return "\n".join(lines)


class StreamStats:
    """Collects times of a running stream; memory stays bounded.

    Percentiles are over the newest ``window`` frames, counts over all. Several threads may write
    and ask at once.

    Args:
        window: frames whose times are kept.
        deadline_ms: ages above it are counted.

    Attributes:
        repeated: results that stood for frames that did not come.
    """

    def __init__(self, window: int = 20_000, deadline_ms: float | None = None) -> None:
        self._window, self._deadline_ms = window, deadline_ms
        self._late = self.repeated = 0
        self._lock = threading.Lock()
        self._stage_ms: dict[str, deque[float]] = {}
        self._done_s: deque[float] = deque()
        self._start_s: float | None = None
        self._last_s = 0.0
        self._segmented = 0
        self._reported = (0.0, 0)

    def start(self) -> None:
        """The first frame is about to be read."""
        with self._lock:
            self._start_s = self._last_s = time.monotonic()
            self._reported = (self._start_s, 0)

    def add(self, stage_ms: dict[str, float]) -> None:
        """A frame is done; how long it spent in each stage."""
        with self._lock:
            self._segmented += 1
            self._last_s = time.monotonic()
            self._done_s.append(self._last_s)
            self._forget(self._last_s)
            if self._deadline_ms is not None and stage_ms.get("age", 0.0) > self._deadline_ms:
                self._late += 1
            for stage, value in stage_ms.items():
                if stage not in self._stage_ms:
                    self._stage_ms[stage] = deque(maxlen=self._window)
                self._stage_ms[stage].append(value)

    def snapshot(self, read: int, dropped: int) -> Snapshot:
        """The figures since the start."""
        with self._lock:
            seconds = self._last_s - self._start_s if self._start_s is not None else 0.0
            found, times = self._counted(read, dropped, seconds, self._segmented), self._times()
        return _with_percentiles(found, times)

    def report(self, read: int, dropped: int) -> Snapshot:
        """The same with the rate since the last report, until now."""
        with self._lock:
            now_s, (since_s, since_count) = time.monotonic(), self._reported
            self._reported = (now_s, self._segmented)
            frames = self._segmented - since_count
            found, times = self._counted(read, dropped, now_s - since_s, frames), self._times()
        return _with_percentiles(found, times)

    def _times(self) -> dict[str, list[float]]:
        """A copy, which is quick: whoever adds a frame must not wait for percentiles."""
        return {stage: list(values) for stage, values in self._stage_ms.items()}

    def _forget(self, now_s: float) -> None:
        """Frames that were done before the time of which the recent rate is."""
        while self._done_s and self._done_s[0] < now_s - RECENT_S:
            self._done_s.popleft()

    def _recent_fps(self) -> float:
        """Until now: of a source that gives nothing any more it falls to zero."""
        if self._start_s is None:
            return 0.0
        now_s = time.monotonic()
        self._forget(now_s)
        seconds = min(RECENT_S, now_s - self._start_s)
        return len(self._done_s) / seconds if seconds > 0 else 0.0

    def _counted(self, read: int, dropped: int, seconds: float, frames: int) -> Snapshot:
        return Snapshot(
            read=read,
            segmented=self._segmented,
            dropped=dropped,
            seconds=seconds,
            fps=frames / seconds if seconds > 0 else 0.0,
            recent_fps=self._recent_fps(),
            stage_ms={},
            repeated=self.repeated,
            late=None if self._deadline_ms is None else self._late,
        )


def _with_percentiles(found: Snapshot, times: dict[str, list[float]]) -> Snapshot:
    return replace(found, stage_ms={stage: _percentiles(values) for stage, values in times.items()})


def _percentiles(values: list[float]) -> tuple[float, float, float]:
    median, p95, p99 = np.percentile(values, PERCENTILES)
    return float(median), float(p95), float(p99)
