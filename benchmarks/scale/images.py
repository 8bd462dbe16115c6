"""Time and memory of an adaptation against the number of images.

Each row adapts in a process of its own. The images are the packaged dusk images, each changed in
brightness and cropped in its own way, as JPEG files; the model is the packaged one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sfda_edge.data import open_images
from sfda_edge.errors import DataError
from sfda_edge.runs.progress import progress_bar

_SIZE_WH = (480, 240)  # of the files; the network's input is 384x192


def measure_images(counts: Sequence[int], method: str, steps: int) -> dict[str, dict[str, Any]]:
    """Seconds and peak memory of an adaptation of each number of images, by way."""
    with tempfile.TemporaryDirectory() as folder:
        return {
            f"{count} images": _measure(Path(folder), count, method=method, steps=steps)
            for count in sorted(counts)
        }


def write_images(folder: Path, count: int) -> None:
    """Add images until the folder holds ``count``; the same number is the same image."""
    folder.mkdir(exist_ok=True)
    sources = [sample.image() for sample in open_images("streetsynth:target").samples]
    for number in progress_bar("write images", count)(range(count)):
        path = folder / f"{number:06d}.jpg"
        if not path.exists():
            Image.fromarray(_changed(sources[number % len(sources)], number)).save(path, quality=90)


def _changed(image: np.ndarray, number: int) -> np.ndarray:
    """A crop of at least 80 % of each side, mirrored or not, 0.7 to 1.3 times as bright."""
    random = np.random.default_rng(number)
    height, width = (round(side * random.uniform(0.8, 1)) for side in image.shape[:2])
    top = random.integers(image.shape[0] - height + 1)
    left = random.integers(image.shape[1] - width + 1)
    crop = image[top : top + height, left : left + width]
    crop = crop[:, ::-1] if random.random() < 0.5 else crop
    bright = np.clip(crop * random.uniform(0.7, 1.3), 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(bright).resize(_SIZE_WH))


def _measure(folder: Path, count: int, *, method: str, steps: int) -> dict[str, Any]:
    images, out_dir = folder / "images", folder / f"run-{count}"
    write_images(images, count)
    command = [sys.executable, "-m", "sfda_edge.cli", "adapt", "--images", str(images)]
    command += ["--method", method, "--out", str(out_dir), "--device", "cpu"]
    if method != "bn":
        command += ["--set", f"steps={steps}"]
    began_s = time.monotonic()
    with subprocess.Popen(command) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise DataError(f"adapt ended with exit code {process.returncode}; its reason stands above")
    seconds = time.monotonic() - began_s
    return {
        "images": count,
        "seconds": round(seconds, 1),
        "ms_per_image": round(1000 * seconds / count, 1),
        "peak_memory_gib": round(used.ru_maxrss / 2**20, 2),
    }
