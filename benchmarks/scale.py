"""python -m benchmarks.scale: time and memory of an adaptation against the number of images.

Each row adapts in a process of its own. The images are the packaged dusk images, each changed in
brightness and cropped in its own way, as JPEG files; the model is the packaged one.
"""

from __future__ import annotations

import argparse
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

from benchmarks.hardware import machine_line, machine_record
from benchmarks.records import output_file, write_record
from runtime.arguments import positive
from runtime.output import print_result, start_output
from sfda_edge.data import open_images
from sfda_edge.runs.progress import progress_bar

_SIZE_WH = (480, 240)  # of the files; the network's input is 384x192


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale",
        description="Measure time and memory against the number of images.",
    )
    parser.add_argument("--images", default="100,1000,10000", help="(default: %(default)s)")
    parser.add_argument("--method", default="multiview", help="(default: %(default)s)")
    parser.add_argument("--steps", type=positive, default=20, help="of training (%(default)s)")
    parser.add_argument("--out", type=output_file, metavar="FILE", help="write the record as JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    start_output()
    args = build_parser().parse_args(arguments)
    counts = sorted(int(text) for text in args.images.split(","))
    with tempfile.TemporaryDirectory() as folder:
        rows = [_measure(Path(folder), count, args) for count in counts]
    steps = None if args.method == "bn" else args.steps
    record = {"method": args.method, "steps": steps, "rows": rows, "machine": machine_record()}
    if args.out is not None:
        write_record(args.out, record)
    print_result(table(record))
    return 0


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


def _measure(folder: Path, count: int, args: argparse.Namespace) -> dict[str, Any]:
    images, out_dir = folder / "images", folder / f"run-{count}"
    write_images(images, count)
    command = [sys.executable, "-m", "sfda_edge.cli", "adapt", "--images", str(images)]
    command += ["--method", args.method, "--out", str(out_dir), "--device", "cpu"]
    if args.method != "bn":
        command += ["--set", f"steps={args.steps}"]
    began_s = time.monotonic()
    with subprocess.Popen(command) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"adapt ended with exit code {process.returncode}")
    seconds = time.monotonic() - began_s
    return {
        "images": count,
        "seconds": round(seconds, 1),
        "peak_memory_gib": round(used.ru_maxrss / 2**20, 2),
        "threads": int(os.environ.get("OMP_NUM_THREADS", "0")),
    }


def table(record: dict[str, Any]) -> str:
    """The record in Markdown."""
    lines = [
        f"`{record['method']}`" + (f", {record['steps']} steps" if record["steps"] else ""),
        "",
        "| images | seconds | ms an image | peak memory |",
        "|---|---|---|---|",
    ]
    for row in record["rows"]:
        each = 1000 * row["seconds"] / row["images"]
        memory = f"{row['peak_memory_gib']:.2f} GiB"
        lines.append(f"| {row['images']} | {row['seconds']:.0f} | {each:.0f} | {memory} |")
    return "\n".join([*lines, "", machine_line(record["machine"])])


if __name__ == "__main__":
    sys.exit(main())
