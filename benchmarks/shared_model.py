"""python -m benchmarks.shared_model: several streams on one model, with and without batches.

The frames of a video are in memory and wait for the model, so that nothing but the model is
measured. Rounds alternate:

    one stream      all frames, one at a time
    N streams       the same number of frames, shared; one image at a time
    N streams, batched   images that wait at the same time are answered as one batch

The bundle has to take batches: ``sfda-edge export … --dynamic-batch``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.hardware import machine_line, machine_record
from benchmarks.records import output_file, write_record
from benchmarks.timing import paired_ratios
from runtime.arguments import natural, positive
from runtime.backends import Backend, open_backend
from runtime.backends.shared import SharedModel
from runtime.bundle.manifest import read_manifest
from runtime.errors import BackendUnavailable, StreamError
from runtime.images import resize_image
from runtime.output import print_error, start_output
from runtime.packaged import CLIP
from runtime.sources.video_file import video_frames


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.shared_model",
        description="Measure several streams on one model, with and without batches.",
    )
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    parser.add_argument("--streams", type=positive, default=2, help="default: %(default)s")
    parser.add_argument("--frames", type=positive, default=240, help="of a round (%(default)s)")
    parser.add_argument("--rounds", type=positive, default=5, help="default: %(default)s")
    parser.add_argument("--threads", type=natural, default=0, help="of one inference (automatic)")
    parser.add_argument("--out", type=output_file, metavar="FILE.json", help="write a record")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    start_output()
    args = build_parser().parse_args(arguments)
    try:
        record = measure(args)
    except StreamError as error:
        print_error(error)
        return 2
    print(text(record))
    if args.out is not None:
        write_record(args.out, record)
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All rounds.

    Raises:
        StreamError: the bundle is damaged, or takes one image at a time.
    """
    manifest, machine = read_manifest(args.bundle), machine_record()
    images = [resize_image(image, manifest.input_hw) for image in video_frames(CLIP)]
    images = [images[index % len(images)] for index in range(args.frames)]
    several = f"{args.streams} streams"
    rows = {
        "one stream": (1, 1),
        several: (args.streams, 1),
        f"{several}, batched": (args.streams, None),
    }
    rates: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(args.rounds):
        for name, (streams, most) in rows.items():
            with open_backend("onnxruntime", args.bundle, manifest, args.threads) as backend:
                if backend.max_batch == 1:
                    raise BackendUnavailable(
                        f"{args.bundle} takes one image at a time; export it with --dynamic-batch"
                    )
                rates[name].append(_rate(backend, images, streams=streams, max_batch=most))
    height, width = manifest.input_hw
    return {
        "bundle": manifest.provenance.get("architecture", str(args.bundle)),
        "size": f"{width}x{height}",
        "per_second": {name: round(statistics.median(each), 2) for name, each in rates.items()},
        "ratio_to_one_stream": {
            name: paired_ratios(each, rates["one stream"]) for name, each in rates.items()
        },
        "machine": machine,
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


def text(record: dict[str, Any]) -> str:
    """The record for a terminal."""
    lines = [f"{record['bundle']}, {record['size']}"]
    for name, rate in record["per_second"].items():
        ratio = record["ratio_to_one_stream"][name]
        rounds = ", ".join(f"{100 * one:.1f}" for one in ratio["rounds"])
        lines.append(f"{name:<22} {rate:7.1f} images/s  {100 * ratio['median']:6.1f} % ({rounds})")
    return "\n".join([*lines, machine_line(record["machine"])])


if __name__ == "__main__":
    sys.exit(main())
