"""python -m benchmarks.device_check: everything that a machine can show of us, in minutes.

Every backend that starts here: load time, golden frame, latency, agreement with ONNX Runtime on the
CPU over 32 frames, memory over 2,000 frames, with and without a CUDA graph. On a machine with a GPU
engines are built and run as well, and adaptation is timed in fp32 and bf16, compiled and not. What
did not run stands in the file with its reason.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring.closed_loop import time_call
from benchmarks.measuring.distribution import distribution
from benchmarks.measuring.machine import machine_line, machine_record
from benchmarks.records import output_file, write_record
from runtime.backends import BACKENDS, ON_GPU, Backend, open_backend, proved
from runtime.bundle.engine_file import LIBRARIES
from runtime.bundle.manifest import Manifest, read_manifest
from runtime.errors import StreamError
from runtime.gpu import cuda_of_driver, find_gpu
from runtime.images import resize_image
from runtime.output import print_error, start_output
from runtime.packaged import BUNDLE_DIR
from runtime.sources.grammar import open_source

AGREEMENT_FRAMES, LATENCY_CALLS, LEAK_CALLS = 32, 300, 2000
WARM_UP_CALLS = 20
# So that all backends fit into eight minutes, whatever the machine.
MOST_S = 25.0
REFERENCE = "onnxruntime"
WHEELS = """\
wheels for a full check, on x86 with an NVIDIA GPU: onnxruntime-gpu (instead of onnxruntime), the
torch of your CUDA, tensorrt and tensorrt-rtx-cu13 with cuda-bindings, openvino,
opencv-python-headless; on Jetson onnxruntime-gpu of JetPack's index, and JetPack's TensorRT"""


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.device_check",
        description="Check every backend, and training, on this machine.",
        epilog=WHEELS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bundle", type=Path, default=BUNDLE_DIR, metavar="DIR")
    parser.add_argument("--backends", metavar="A,B", help="only these (default: all)")
    parser.add_argument("--out", type=output_file, metavar="FILE", help="write the record as JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code: 2 when the CPU's own backend fails."""
    start_output()
    args = build_parser().parse_args(arguments)
    begin_s = time.monotonic()
    try:
        record = check(args)
    except StreamError as error:
        print_error(error)
        return 2
    record["seconds"] = round(time.monotonic() - begin_s, 1)
    print(f"{machine_line(record['machine'])}; {record['seconds']:.0f} s")
    if args.out is not None:
        write_record(args.out, record)
    return 0


def check(args: argparse.Namespace) -> dict[str, Any]:
    """Check all backends in turn, then training.

    Raises:
        StreamError: the bundle is damaged, or ONNX Runtime does not start on the CPU.
    """
    manifest = read_manifest(args.bundle)
    chosen = args.backends.split(",") if args.backends else None
    if unknown := set(chosen or ()) - set(BACKENDS):
        raise StreamError(f"unknown backend {min(unknown)}; known: {', '.join(BACKENDS)}")
    with _with_engines(args.bundle, chosen) as bundle_dir:
        rows = _rows(bundle_dir, manifest, chosen)
    training = _training() if chosen is None else []
    for row in training:
        print(_training_line(row))
    gpu = find_gpu()
    return {
        "bundle": {"precision": manifest.precision, "input_hw": manifest.input_hw},
        "backends": rows,
        "training": training,
        "gpu": None if gpu is None else {"name": gpu.name, "capability": gpu.compute_capability},
        "cuda_of_driver": cuda_of_driver(),
        "machine": machine_record(),
    }


def _training() -> list[dict[str, Any]]:
    """Rows of training; a device has no torch."""
    try:
        from benchmarks.device_training import measure_training
    except ModuleNotFoundError as error:
        reason = f"{error}: pip install 'sfda-edge[adapt]'"
        return [{"precision": "in any precision", "compiled": False, "did_not_run": reason}]
    return measure_training()


def _rows(
    bundle_dir: Path, manifest: Manifest, chosen: Sequence[str] | None
) -> list[dict[str, Any]]:
    """A row of each backend."""
    images = _frames(manifest.input_hw)
    with open_backend(REFERENCE, bundle_dir, manifest) as reference:
        labels = [reference.infer(image) for image in images]
    rows = []
    for name, opener in _openers(bundle_dir, manifest).items():
        if chosen is None or name.partition(",")[0] in chosen:
            rows.append({"backend": name, **_checked(opener, images, labels)})
            print(_line(rows[-1]))
    return rows


def _openers(bundle_dir: Path, manifest: Manifest) -> dict[str, Callable[[], Backend]]:
    """Every backend, and those that can without their CUDA graph."""

    def without_graph(name: str) -> Backend:
        return proved(_open_without_graph(name, bundle_dir, manifest), bundle_dir, manifest)

    found: dict[str, Callable[[], Backend]] = {}
    for name in BACKENDS:
        found[name] = partial(open_backend, name, bundle_dir, manifest)
        if name in ON_GPU:
            found[f"{name}, no CUDA graph"] = partial(without_graph, name)
    return found


def _open_without_graph(name: str, bundle_dir: Path, manifest: Manifest) -> Backend:
    if name in LIBRARIES:
        from runtime.backends.tensorrt import open_tensorrt_engine

        return open_tensorrt_engine(name, bundle_dir, manifest, cuda_graph=False)
    from runtime.backends import onnxruntime_gpu

    cuda = name == "onnxruntime-cuda"
    opener = onnxruntime_gpu.open_cuda if cuda else onnxruntime_gpu.open_tensorrt
    return opener(bundle_dir, manifest, cuda_graph=False)


@contextlib.contextmanager
def _with_engines(bundle_dir: Path, chosen: Sequence[str] | None) -> Iterator[Path]:
    """A copy of the bundle, with an engine of each chosen library that builds one here."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(bundle_dir, Path(folder) / "bundle"))
        wanted = [name for name in LIBRARIES if chosen is None or name in chosen]
        for library in wanted if find_gpu() is not None else ():
            print(f"building an engine of {library}")
            try:
                from export.engine.__main__ import main as build_engine

                if build_engine([str(copy), "--library", library]) != 0:
                    print(f"no engine of {library} was built: the reason stands above")
            except ModuleNotFoundError as error:
                print(f"no engine of {library} was built: {error}")
        yield copy


def _frames(input_hw: tuple[int, int]) -> list[np.ndarray]:
    with open_source("streetsynth") as source:
        frames = itertools.islice(iter(source.read, None), AGREEMENT_FRAMES)
        return [resize_image(frame.image, input_hw) for frame in frames if frame is not None]


def _checked(
    opener: Callable[[], Backend], images: list[np.ndarray], labels: list[np.ndarray]
) -> dict[str, Any]:
    """One backend's row, or why there is none."""
    start_s = time.perf_counter()
    try:
        backend = opener()
        with backend:
            return _measured(backend, images, labels, load_s=time.perf_counter() - start_s)
    except Exception as error:  # one that fails must not hide the others
        return {"did_not_run": f"{type(error).__name__}: {error}"}


def _measured(
    backend: Backend, images: list[np.ndarray], labels: list[np.ndarray], *, load_s: float
) -> dict[str, Any]:
    agreements = [
        float((backend.infer(image) == expected).mean())
        for image, expected in zip(images, labels, strict=True)
    ]
    latency = _latency(backend, images)
    growth_mib, calls = _growth(backend, images)
    return {
        "load_s": round(load_s, 3),
        **backend.record(),
        "agreement_with_cpu": round(float(np.mean(agreements)), 6),
        "least_agreement": round(min(agreements), 6),
        "latency": latency,
        "memory_growth_mib": growth_mib,
        "memory_calls": calls,
    }


def _latency(backend: Backend, images: list[np.ndarray]) -> dict[str, Any]:
    for image in images[:WARM_UP_CALLS]:
        backend.outputs(image)
    durations_ms: list[float] = []
    while len(durations_ms) < LATENCY_CALLS and sum(durations_ms) < 1000 * MOST_S:
        image = images[len(durations_ms) % len(images)]
        durations_ms.append(time_call(partial(backend.outputs, image)))
    return distribution(durations_ms).record()


def _growth(backend: Backend, images: list[np.ndarray]) -> tuple[float, int]:
    """Growth of this process's memory, in MiB, over how many calls."""
    before, end_s = _resident_mib(), time.monotonic() + MOST_S
    calls = 0
    while calls < LEAK_CALLS and time.monotonic() < end_s:
        backend.outputs(images[calls % len(images)])
        calls += 1
    return round(_resident_mib() - before, 2), calls


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _line(row: dict[str, Any]) -> str:
    if "did_not_run" in row:
        return f"{row['backend']:<36} did not run: {row['did_not_run']}"
    latency = row["latency"]
    return (
        f"{row['backend']:<36} {row['provider']}, {row['precision']}; load {row['load_s']:.1f} s; "
        f"p50 {latency['p50_ms']:.2f} p99 {latency['p99_ms']:.2f} ms; "
        f"{100 * row['agreement_with_cpu']:.3f} % of the CPU's labels; "
        f"{row['memory_growth_mib']:+.1f} MiB in {row['memory_calls']} calls"
    )


def _training_line(row: dict[str, Any]) -> str:
    name = f"adapt {row['precision']}{' compiled' if row['compiled'] else ''}"
    if "did_not_run" in row:
        return f"{name:<36} did not run: {row['did_not_run']}"
    return (
        f"{name:<36} {row['images_per_second']:.1f} images/s, step p50 {row['step_ms']:.1f} ms, "
        f"peak {row['peak_memory_mib']:.0f} MiB"
    )


if __name__ == "__main__":
    sys.exit(main())
