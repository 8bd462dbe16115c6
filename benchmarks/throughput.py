"""python -m benchmarks.throughput: frames per second of several files through one device.

The figure that a fleet asks for when it processes recordings. Rounds alternate:

    one after the other      each file as ``python -m runtime.stream FILE`` reads it
    N side by side           N files at once in one process, with one model
    N processes              N files at once, each in a process with its share of the threads;
                             starting them is part of the time
    plain loop               OpenCV reads, ONNX Runtime runs, one file after the other

Each way opens its model anew in every round. A pass of each goes before and is not counted. Where
the machine shows the power of what does the work, the energy of a frame stands beside it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measuring.arguments import add_rows_file, add_threads
from runtime.arguments import positive
from runtime.backends import BACKENDS, ON_GPU
from runtime.bundle.manifest import Manifest, read_manifest
from runtime.errors import SourceError
from runtime.output import start_output
from runtime.packaged import BUNDLE_DIR

if TYPE_CHECKING:
    from benchmarks.measuring.rows import Invocation, Row
    from benchmarks.measuring.table import Table
    from runtime.backends import Backend

VIDEO_HW, VIDEO_FPS = (720, 1280), 30
PLAIN, PLAIN_BACKEND = "plain loop", "onnxruntime"


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput",
        description="Measure frames per second of several files through one device.",
    )
    parser.add_argument("files", nargs="*", type=Path, help="(default: the packaged clip in 720p)")
    parser.add_argument("--bundle", type=Path, default=BUNDLE_DIR, metavar="DIR", help="(packaged)")
    parser.add_argument(  # not auto: whose energy is measured depends on it
        "--backend", choices=tuple(BACKENDS), default="onnxruntime", help="(default: %(default)s)"
    )
    parser.add_argument("--count", type=positive, default=4, help="of files (%(default)s)")
    parser.add_argument("--frames", type=positive, default=60, help="of a file (%(default)s)")
    parser.add_argument("--parallel", type=positive, default=2, help="at once (%(default)s)")
    add_threads(parser)
    parser.add_argument("--rounds", type=positive, default=5, help="(default: %(default)s)")
    add_rows_file(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    start_output()
    args = build_parser().parse_args(arguments)
    from benchmarks.measuring.program import keep_and_print
    from benchmarks.measuring.rows import invocation

    begun = invocation("benchmarks.throughput", arguments)
    return keep_and_print(lambda: _measure(args, begun), table, args.out)


def _measure(args: argparse.Namespace, begun: Invocation) -> list[Row]:
    from benchmarks.efficiency_parts import write_video
    from benchmarks.measuring.machine import watch
    from benchmarks.measuring.rows import Origin

    manifest = read_manifest(args.bundle)
    height, width = manifest.input_hw
    with tempfile.TemporaryDirectory() as folder:
        files = args.files
        if not files:
            files = [Path(folder) / f"{number}.mp4" for number in range(args.count)]
            for path in files:
                write_video(path, VIDEO_HW, VIDEO_FPS, num_frames=args.frames)
        with watch() as watched:
            figures = _rounds(args, manifest, files)
    network = manifest.provenance.get("architecture", str(args.bundle))
    origin = Origin(begun, network, f"{width}x{height}", manifest.precision)
    conditions = {"files": len(files), "backend": args.backend, "threads": args.threads}
    return origin.rows(figures, watched.machine, conditions)


def _rounds(
    args: argparse.Namespace, manifest: Manifest, files: Sequence[Path]
) -> dict[str, dict[str, Any]]:
    """Rates and energy of each way, in turn."""
    from benchmarks.measuring.distribution import paired_ratio
    from benchmarks.measuring.energy import find_meter

    on_gpu = args.backend in ON_GPU
    meter = find_meter(on_gpu=on_gpu)
    if meter is None:
        print("energy is not measured: this machine shows no power", file=sys.stderr)
    ways = _ways(args, manifest, files)
    _require_same_frames({way: run() for way, run in ways.items()})
    rates: dict[str, list[float]] = {way: [] for way in ways}
    joules: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(args.rounds):
        for way, run in ways.items():
            if meter is None or (on_gpu and way == PLAIN):  # which runs on the CPU
                frames, seconds = _timed(run)
            else:
                with meter.measure() as energy:
                    frames, seconds = _timed(run)
                if energy.joules is not None:
                    joules[way].append(energy.joules / frames)
            rates[way].append(frames / seconds)
    first = rates[next(iter(ways))]
    figures: dict[str, dict[str, Any]] = {}
    for way, found in rates.items():
        # A ratio of times: above 1 is slower than one file after the other.
        ratio = paired_ratio(first, found).record()
        figures[way] = {"frames_per_second": round(statistics.median(found), 2), "ratio": ratio}
        figures[way]["backend"] = PLAIN_BACKEND if way == PLAIN else args.backend
        if meter is not None and joules[way]:
            figures[way] |= {"joules_per_frame": round(statistics.median(joules[way]), 4)}
            figures[way] |= {"energy_sensor": meter.name}
    return figures


def _require_same_frames(counts: dict[str, int]) -> None:
    """A way that ends early must not look fast.

    Raises:
        SourceError: the ways have not read the same number of frames.
    """
    if len(set(counts.values())) > 1 or 0 in counts.values():
        listed = ", ".join(f"{way}: {count}" for way, count in counts.items())
        raise SourceError(f"not every way read every frame of these files ({listed})")


def _timed(run: Callable[[], int]) -> tuple[int, float]:
    start_s = time.perf_counter()
    frames = run()
    return frames, time.perf_counter() - start_s


def _ways(
    args: argparse.Namespace, manifest: Manifest, files: Sequence[Path]
) -> dict[str, Callable[[], int]]:
    settings = {"bundle": args.bundle, "backend": args.backend, "threads": args.threads}
    together = min(args.parallel, len(files))
    own_threads = max(1, args.threads // together)
    own_process = partial(_in_own_process, **{**settings, "threads": own_threads})
    return {
        "one after the other": partial(_in_one_process, files, manifest, parallel=1, **settings),
        f"{together} side by side": partial(
            _in_one_process, files, manifest, parallel=together, **settings
        ),
        f"{together} processes": partial(_processes, own_process, files, together),
        PLAIN: partial(_plain_loop, args, manifest, files),
    }


def _in_one_process(
    files: Sequence[Path],
    manifest: Manifest,
    *,
    parallel: int,
    bundle: Path,
    backend: str,
    threads: int,
) -> int:
    """All files, ``parallel`` of them at once, with one model; number of frames."""
    from runtime.backends import open_backend
    from runtime.backends.shared import SharedModel

    opened = open_backend(backend, bundle, manifest, threads)
    with SharedModel(opened) if parallel > 1 else opened as model:
        run = partial(_stream, backend=model, manifest=manifest)
        with ThreadPoolExecutor(parallel) as pool:
            return sum(pool.map(run, files))


def _stream(file: Path, backend: Backend, manifest: Manifest) -> int:
    from runtime.pipeline import Pipeline
    from runtime.sources.grammar import open_source

    with open_source(str(file)) as source:
        pipeline = Pipeline(source, backend, manifest.input_hw)
        pipeline.run()
    return pipeline.frames_read


def _in_own_process(file: Path, *, bundle: Path, backend: str, threads: int) -> int:
    """One file with a model of its own: what a process of the pool does."""
    manifest = read_manifest(bundle)
    return _in_one_process(
        [file], manifest, parallel=1, bundle=bundle, backend=backend, threads=threads
    )


def _processes(run: Callable[[Path], int], files: Sequence[Path], count: int) -> int:
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        return sum(pool.map(run, files))


def _plain_loop(args: argparse.Namespace, manifest: Manifest, files: Sequence[Path]) -> int:
    from benchmarks.efficiency_parts import SpinningThreads
    from benchmarks.peers.video_loops import VideoTask, opencv

    model = SpinningThreads(args.bundle / manifest.model_file, manifest, args.threads)
    with model:
        return sum(opencv(VideoTask(file, model, manifest, out=None)) for file in files)


def table(rows: Sequence[Row]) -> Table:
    """All rows are of one run."""
    from benchmarks.measuring.table import number, ratio_text, table_of

    first = rows[0]
    title = f"{first.network}, {first.size}, {first.conditions['files']} files"
    sensor = first.figures.get("energy_sensor")
    energy = f"joules a frame, {sensor}" if sensor else "joules a frame"
    columns = ["", "backend", "frames/s", "time, ratio to the first", energy]
    cells = [
        [
            row.way,
            str(row.figures.get("backend", row.conditions["backend"])),
            number(row.figures, "frames_per_second", 1),
            ratio_text(row.figures),
            number(row.figures, "joules_per_frame", 3) or "not measured",
        ]
        for row in rows
    ]
    return table_of(rows, title, columns, cells)


if __name__ == "__main__":
    sys.exit(main())
