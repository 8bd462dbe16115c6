"""Images a second of several streams that share one model.

The frames are in memory and wait for the model, so that nothing but the model is measured.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring.distribution import paired_ratio
from runtime.backends import Backend, open_backend
from runtime.backends.shared import SharedModel
from runtime.bundle.manifest import read_manifest
from runtime.images import resize_image
from runtime.packaged import CLIP
from runtime.sources.video_file import video_frames


def measure_streams(
    counts: Sequence[int], bundle_dir: Path, *, frames: int, rounds: int, threads: int
) -> dict[str, dict[str, Any]]:
    """Rates of each number of streams, in rounds that alternate.

    With batches as well where the bundle takes them (``sfda-edge export … --dynamic-batch``).

    Args:
        counts: numbers of streams; ratios refer to the first.
        bundle_dir: the model.
        frames: of a round, shared out to the streams.
        rounds: of each.
        threads: of one inference; 0 for ONNX Runtime's choice.
    """
    manifest = read_manifest(bundle_dir)
    images = [resize_image(image, manifest.input_hw) for image in video_frames(CLIP)]
    images = [images[index % len(images)] for index in range(frames)]
    with open_backend("onnxruntime", bundle_dir, manifest, threads) as backend:
        batched = [] if backend.max_batch == 1 else [(n, None) for n in counts if n > 1]
    ways: dict[str, tuple[int, int | None]] = {}
    for streams, most in [*((n, 1) for n in counts), *batched]:
        plural = "" if streams == 1 else "s"
        ways[f"{streams} stream{plural}{', batched' if most is None else ''}"] = (streams, most)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (streams, most) in ways.items():
            with open_backend("onnxruntime", bundle_dir, manifest, threads) as backend:
                rates[name].append(_rate(backend, images, streams=streams, max_batch=most))
    first = rates[next(iter(ways))]
    return {
        name: {
            "streams": ways[name][0],
            "images_per_second": round(statistics.median(each), 2),
            # A ratio of times: above 1 is slower than the first number of streams.
            "ratio": paired_ratio(first, each).record(),
        }
        for name, each in rates.items()
    }


def _rate(
    backend: Backend, images: Sequence[np.ndarray], *, streams: int, max_batch: int | None
) -> float:
    """Images a second of all streams together."""
    with SharedModel(backend, max_batch) as model:
        for image in images[:3]:
            model.outputs(image)
        shares = [images[number::streams] for number in range(streams)]
        start_s = time.perf_counter()
        with ThreadPoolExecutor(streams) as pool:
            done = sum(pool.map(lambda share: len([model.outputs(one) for one in share]), shares))
        return done / (time.perf_counter() - start_s)
