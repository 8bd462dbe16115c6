"""Calls at a camera's rate: how old an answer is, and how many frames came too fast."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.measuring.distribution import Distribution, distribution


@dataclass(frozen=True)
class Paced:
    """Answers to a camera.

    Attributes:
        frames: that the camera sent.
        age: of the answered frames: from the frame's arrival to its answer.
        dropped: frames that were replaced by a newer one before the model was free.
        late: answers that came after the next frame had arrived.
    """

    frames: int
    age: Distribution
    dropped: int
    late: int

    @property
    def missed(self) -> int:
        """Deadlines missed: the deadline of a frame is the arrival of the next one."""
        return self.dropped + self.late

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        counts = {"frames": self.frames, "dropped": self.dropped, "late": self.late}
        return counts | {"missed": self.missed, "age": self.age.record()}


def measure_paced(
    call: Callable[[], object],
    frames_per_second: float,
    frames: int,
    *,
    now_s: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Paced:
    """Answer the newest frame of a camera that sends at a fixed rate.

    Args:
        call: answers one frame, and waits for the answer.
        frames_per_second: of the camera.
        frames: how many it sends.
        now_s: a monotonic clock.
        sleep: waits as many seconds at least.
    """
    period_s, start_s = 1 / frames_per_second, now_s()
    ages_ms: list[float] = []
    dropped, late, number = 0, 0, 0
    while number < frames:
        arrival_s = start_s + number * period_s
        if (wait_s := arrival_s - now_s()) > 0:
            sleep(wait_s)
        newest = min(frames - 1, int((now_s() - start_s) / period_s))
        if newest > number:
            dropped += newest - number
            number, arrival_s = newest, start_s + newest * period_s
        call()
        age_s = now_s() - arrival_s
        ages_ms.append(1000 * age_s)
        late += age_s > period_s
        number += 1
    return Paced(frames, distribution(ages_ms), dropped=dropped, late=late)
