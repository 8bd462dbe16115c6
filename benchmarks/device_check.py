"""python -m benchmarks.device_check: everything that a machine can show of us, in minutes.

Every backend that starts here: load time, golden frame, latency, agreement with ONNX Runtime on the
CPU over 32 frames, memory over 2,000 frames, with and without a CUDA graph. On a machine with a GPU
engines are built and run as well, and adaptation is timed in fp32 and bf16, compiled and not. What
did not run stands in the file with its reason; the file is written again after each row.
"""

from __future__ import annotations

import argparse
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

from benchmarks.measuring.arguments import some_of
from benchmarks.measuring.closed_loop import time_call
from benchmarks.measuring.distribution import distribution
from benchmarks.measuring.machine import machine_line, machine_record
from benchmarks.measuring.program import exit_code_of
from benchmarks.measuring.rows import invocation
from benchmarks.records import output_file, write_record
from runtime.backends import BACKENDS, ON_GPU, Backend, open_backend, proved
from runtime.bundle.engine_file import LIBRARIES
from runtime.bundle.manifest import Manifest, read_manifest
from runtime.gpu import cuda_of_driver, find_gpu
from runtime.images import resize_image
from runtime.output import print_result, start_output
from runtime.packaged import BUNDLE_DIR
from runtime.sources.grammar import open_source

AGREEMENT_FRAMES, LATENCY_CALLS, LEAK_CALLS = 32, 300, 2000
WARM_UP_CALLS = 20
# Of one loop; and of all: what is not begun by then does not run. What cannot be ended, such as
# building an engine, may reach beyond.
MOST_S, MOST_TOTAL_S = 25.0, 480.0
TIME_IS_OVER = f"the {MOST_TOTAL_S / 60:g} minutes of a check were over"
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
    parser.add_argument(
        "--backends",
        type=some_of(tuple(BACKENDS)),
        metavar="A,B",
        help="only these (default: all, and training)",
    )
    parser.add_argument("--out", type=output_file, metavar="FILE", help="write the record as JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code: 2 when the CPU's own backend fails."""
    start_output()
    args = build_parser().parse_args(arguments)
    begun = invocation("benchmarks.device_check", arguments)
    origin = {"command": begun.command, "commit": begun.commit}
    return exit_code_of(lambda: _run(args, origin))


def _run(args: argparse.Namespace, origin: dict[str, Any]) -> None:
    begin_s = time.monotonic()
    record: dict[str, Any] = {}
    for record in check(args.bundle, args.backends, begin_s + MOST_TOTAL_S):
        record |= {**origin, "seconds": round(time.monotonic() - begin_s, 1)}
        if args.out is not None:
            write_record(args.out, record)
    print_result(f"{machine_line(record['machine'])}; {record['seconds']:.0f} s")


def check(bundle: Path, chosen: Sequence[str] | None, end_s: float) -> Iterator[dict[str, Any]]:
    """Check all backends in turn, then training; the record after each row.

    Args:
        bundle: to run.
        chosen: backends; None for all, and training.
        end_s: when, on the monotonic clock, nothing more is begun.

    Raises:
        StreamError: the bundle is damaged, or ONNX Runtime does not start on the CPU.
    """
    manifest = read_manifest(bundle)
    gpu = find_gpu()
    record: dict[str, Any] = {
        "bundle": {"precision": manifest.precision, "input_hw": manifest.input_hw},
        "backends": [],
        "training": [],
        "gpu": None if gpu is None else {"name": gpu.name, "capability": gpu.compute_capability},
        "cuda_of_driver": cuda_of_driver(),
        "machine": machine_record(),
    }
    with tempfile.TemporaryDirectory() as folder:  # which engines are built in
        bundle_dir = Path(shutil.copytree(bundle, Path(folder) / "bundle"))
        for row in _rows(bundle_dir, manifest, chosen, end_s):
            record["backends"].append(row)
            print_result(_line(row))
            yield record
    for row in _training(end_s) if chosen is None else ():
        record["training"].append(row)
        print_result(_training_line(row))
        yield record


def _training(end_s: float) -> Iterator[dict[str, Any]]:
    """Rows of training; a device has no torch."""
    try:
        from benchmarks.device_training import measure_training
    except Exception as error:  # torch may be missing, or not start
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, ModuleNotFoundError):
            reason = f"{error}: pip install 'sfda-edge[adapt]'"
        yield {"precision": "in any precision", "compiled": False, "did_not_run": reason}
        return
    yield from measure_training(end_s=end_s)


def _rows(
    bundle_dir: Path, manifest: Manifest, chosen: Sequence[str] | None, end_s: float
) -> Iterator[dict[str, Any]]:
    """A row of each backend."""
    images = _frames(manifest.input_hw)
    with open_backend(REFERENCE, bundle_dir, manifest) as reference:
        labels = [reference.infer(image) for image in images]
    for name, opener in _openers(bundle_dir, manifest).items():
        if chosen is None or name.partition(",")[0] in chosen:
            if name in LIBRARIES and find_gpu() is not None and time.monotonic() < end_s:
                _build_engine(bundle_dir, name)
            yield {"backend": name, **_checked(opener, images, labels, end_s)}


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


def _build_engine(bundle_dir: Path, library: str) -> None:
    """Build an engine of a library, or print why there is none.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed meanwhile.
    """
    print_result(f"building an engine of {library}")
    try:
        from export.engine.__main__ import main as build_engine

        code = build_engine([str(bundle_dir), "--library", library])
    except Exception as error:  # a library's own; the others are still checked
        print_result(f"no engine of {library} was built: {type(error).__name__}: {error}")
        return
    if code == 130:
        raise KeyboardInterrupt
    if code:
        print_result(f"no engine of {library} was built: the reason stands above")


def _frames(input_hw: tuple[int, int]) -> list[np.ndarray]:
    with open_source("streetsynth") as source:
        frames = itertools.islice(iter(source.read, None), AGREEMENT_FRAMES)
        return [resize_image(frame.image, input_hw) for frame in frames if frame is not None]


def _checked(
    opener: Callable[[], Backend],
    images: list[np.ndarray],
    labels: list[np.ndarray],
    end_s: float,
) -> dict[str, Any]:
    """One backend's row, or why there is none."""
    start_s = time.perf_counter()
    if time.monotonic() > end_s:
        return {"did_not_run": TIME_IS_OVER}
    try:
        backend = opener()
        with backend:
            load_s = time.perf_counter() - start_s
            return {"load_s": round(load_s, 3), **_measured(backend, images, labels, end_s)}
    except Exception as error:  # one that fails must not hide the others
        return {"did_not_run": f"{type(error).__name__}: {error}"}


def _measured(
    backend: Backend, images: list[np.ndarray], labels: list[np.ndarray], end_s: float
) -> dict[str, Any]:
    agreements = [
        float((backend.infer(image) == expected).mean())
        for image, expected in zip(images, labels, strict=True)
    ]
    latency = _latency(backend, images, end_s)
    growth_mib, calls = _growth(backend, images, end_s)
    return {
        **backend.record(),
        "agreement_with_cpu": round(float(np.mean(agreements)), 6),
        "least_agreement": round(min(agreements), 6),
        "latency": latency,
        "memory_growth_mib": growth_mib,
        "memory_calls": calls,
    }


def _latency(backend: Backend, images: list[np.ndarray], end_s: float) -> dict[str, Any]:
    for image in images[:WARM_UP_CALLS]:
        backend.outputs(image)
    end_s = min(end_s, time.monotonic() + MOST_S)
    durations_ms: list[float] = []
    while not durations_ms or (len(durations_ms) < LATENCY_CALLS and time.monotonic() < end_s):
        image = images[len(durations_ms) % len(images)]
        durations_ms.append(time_call(partial(backend.outputs, image)))
    return distribution(durations_ms).record()


def _growth(backend: Backend, images: list[np.ndarray], end_s: float) -> tuple[float, int]:
    """Growth of this process's memory, in MiB, over how many calls."""
    before, calls = _resident_mib(), 0
    end_s = min(end_s, time.monotonic() + MOST_S)
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
