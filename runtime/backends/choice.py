"""fastest: which of several backends runs a model in the least time on this machine.

Which library is faster depends on the network: ESPNetv2 takes OpenVINO 0.88 times as long as ONNX
Runtime, the packaged network 1.3 times (benchmarks/results/README.md).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence

import numpy as np

from runtime.backends.base import Backend

logger = logging.getLogger("runtime.backends")
# In a row: threads of the library that ran before may still wait in a loop during the first.
_IN_A_ROW = 3
_MOST_ROUNDS, _ENOUGH_S = 4, 0.2


def fastest(backends: Sequence[Backend], image: np.ndarray) -> Backend:
    """The backend whose shortest inference is the shortest; the times are logged.

    They take turns, and of the times the least counts: what else runs only makes them longer. It
    takes a fifth of a second, or three inferences of each where those take longer.

    Args:
        backends: proved on the model, at least one.
        image: (H, W, 3) uint8 RGB at the model's input size.
    """
    if len(backends) == 1:
        return backends[0]
    least_s, began_s = [math.inf] * len(backends), time.perf_counter()
    for _ in range(_MOST_ROUNDS):
        for index, backend in enumerate(backends):
            least_s[index] = min(least_s[index], _least_s(backend, image))
        if time.perf_counter() - began_s > _ENOUGH_S:
            break
    best = backends[least_s.index(min(least_s))]
    logger.info(
        "%s: %s takes the least time",
        ", ".join(f"{b.name} {1000 * s:.1f} ms" for b, s in zip(backends, least_s, strict=True)),
        best.name,
    )
    return best


def _least_s(backend: Backend, image: np.ndarray) -> float:
    took_s = []
    for _ in range(_IN_A_ROW):
        began_s = time.perf_counter()
        backend.outputs(image)
        took_s.append(time.perf_counter() - began_s)
    return min(took_s)
