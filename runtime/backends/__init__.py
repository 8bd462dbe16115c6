"""Backends: what runs a bundle's model. ``with open_backend(name, bundle_dir, manifest) as …``.

| name                     | library and device                           | in ``auto`` |
|--------------------------|----------------------------------------------|-------------|
| ``tensorrt``             | TensorRT, on an engine that was built here   | 1st         |
| ``tensorrt-rtx``         | TensorRT for RTX, on an engine for this GPU  | 2nd         |
| ``onnxruntime-tensorrt`` | ONNX Runtime's TensorRT provider, NVIDIA GPU | 3rd         |
| ``onnxruntime-cuda``     | ONNX Runtime's CUDA provider, NVIDIA GPU     | 4th         |
| ``openvino``             | OpenVINO on an x86 CPU                       | last, the   |
| ``onnxruntime``          | ONNX Runtime on the CPU                      | faster one  |
| ``opencv``               | cv2.dnn on the CPU                           | no: slower  |
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np

from runtime.backends.base import Backend
from runtime.backends.choice import fastest
from runtime.backends.verify import golden_agreement, require_precision
from runtime.bundle.golden import read_golden
from runtime.bundle.manifest import Manifest
from runtime.errors import BackendUnavailable

__all__ = ["AUTO", "BACKENDS", "ON_CPU", "ON_GPU", "Backend", "open_backend", "proved"]

logger = logging.getLogger(__name__)
Opener = Callable[[Path, Manifest, int], Backend]


def _require(module: str, advice: str) -> None:
    """A library that is missing is told from a broken module of ours.

    Raises:
        BackendUnavailable: it is missing, or does not start.
    """
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise BackendUnavailable(f"{module} does not start ({error}): {advice}") from None


def _open_onnxruntime(bundle_dir: Path, manifest: Manifest, num_threads: int) -> Backend:
    _require("onnxruntime", "pip install 'sfda-edge[runtime-cpu]'")
    from runtime.backends.onnxruntime import OnnxRuntimeBackend

    path = bundle_dir / manifest.model_file
    return OnnxRuntimeBackend("onnxruntime", path, manifest, num_threads=num_threads)


def _open_tensorrt(bundle_dir: Path, manifest: Manifest, _num_threads: int) -> Backend:
    from runtime.backends.tensorrt import open_tensorrt_engine

    return open_tensorrt_engine("tensorrt", bundle_dir, manifest)


def _open_tensorrt_rtx(bundle_dir: Path, manifest: Manifest, _num_threads: int) -> Backend:
    from runtime.backends.tensorrt import open_tensorrt_engine

    return open_tensorrt_engine("tensorrt-rtx", bundle_dir, manifest)


def _open_cuda(bundle_dir: Path, manifest: Manifest, _num_threads: int) -> Backend:
    _require("onnxruntime", "pip install onnxruntime-gpu")
    from runtime.backends.onnxruntime_gpu import open_cuda

    return open_cuda(bundle_dir, manifest)


def _open_ort_tensorrt(bundle_dir: Path, manifest: Manifest, _num_threads: int) -> Backend:
    _require("onnxruntime", "pip install onnxruntime-gpu")
    from runtime.backends.onnxruntime_gpu import open_tensorrt

    return open_tensorrt(bundle_dir, manifest)


def _open_openvino(bundle_dir: Path, manifest: Manifest, num_threads: int) -> Backend:
    if platform.machine() not in ("x86_64", "AMD64"):
        raise BackendUnavailable(f"openvino: on x86 only, this machine is {platform.machine()}")
    _require("openvino", "pip install 'sfda-edge[openvino]'")
    from runtime.backends.openvino import OpenVinoBackend

    return OpenVinoBackend(bundle_dir / manifest.model_file, manifest, num_threads)


def _open_opencv(bundle_dir: Path, manifest: Manifest, num_threads: int) -> Backend:
    _require("cv2", "pip install 'sfda-edge[opencv-headless]'")
    from runtime.backends.opencv import OpenCvBackend

    return OpenCvBackend(bundle_dir / manifest.model_file, manifest, num_threads)


BACKENDS: dict[str, Opener] = {
    "tensorrt": _open_tensorrt,
    "tensorrt-rtx": _open_tensorrt_rtx,
    "onnxruntime-tensorrt": _open_ort_tensorrt,
    "onnxruntime-cuda": _open_cuda,
    "openvino": _open_openvino,
    "onnxruntime": _open_onnxruntime,
    "opencv": _open_opencv,
}
ON_GPU = ("tensorrt", "tensorrt-rtx", "onnxruntime-tensorrt", "onnxruntime-cuda")
ON_CPU = ("openvino", "onnxruntime")
AUTO = (*ON_GPU, *ON_CPU)


def open_backend(name: str, bundle_dir: Path, manifest: Manifest, num_threads: int = 0) -> Backend:
    """Open a bundle's model, and prove it with the bundle's golden frame.

    Args:
        name: one of ``BACKENDS``, or ``auto`` for the first of ``ON_GPU`` that starts, else the
            faster of ``ON_CPU``; why others were passed over is logged.
        bundle_dir: the bundle.
        manifest: as ``read_manifest`` checked it.
        num_threads: for one inference; 0 lets the library choose.

    Raises:
        BackendUnavailable: unknown, not installed, it does not take the model, or computes
            something else than what was exported.
        ManifestError: the golden frame is damaged.
    """
    if name == "auto":
        return _open_auto(bundle_dir, manifest, num_threads)
    if name not in BACKENDS:
        raise BackendUnavailable(f"unknown backend '{name}'; known: auto, {', '.join(BACKENDS)}")
    return proved(BACKENDS[name](bundle_dir, manifest, num_threads), bundle_dir, manifest)


def proved(backend: Backend, bundle_dir: Path, manifest: Manifest) -> Backend:
    """A backend that computes as exactly as its bundle, and labels the golden frame as exported.

    Raises:
        BackendUnavailable: it does not; it is closed.
        ManifestError: the golden frame is damaged.
    """
    try:
        require_precision(backend, manifest.precision)
        backend.model_sha256 = manifest.sha256.get(manifest.model_file, "")
        golden = read_golden(bundle_dir, manifest)
        backend.agreement = None if golden is None else golden_agreement(backend, golden)
    except BaseException:
        backend.close()
        raise
    return backend


def _open_auto(bundle_dir: Path, manifest: Manifest, num_threads: int) -> Backend:
    """The first backend of a GPU that starts, else the fastest of the CPU.

    Raises:
        BackendUnavailable: none starts; names each reason.
    """
    names_by_reason: dict[str, list[str]] = {}
    started: list[Backend] = []
    with contextlib.ExitStack() as stack:
        for name in AUTO:
            if started and started[0].name in ON_GPU:
                break
            try:
                backend = open_backend(name, bundle_dir, manifest, num_threads)
            except BackendUnavailable as error:
                names_by_reason.setdefault(str(error), []).append(name)
                continue
            started.append(stack.enter_context(backend))
        lines = [f"{', '.join(names)}: {reason}" for reason, names in names_by_reason.items()]
        if not started:
            raise BackendUnavailable("\n  ".join(["no backend starts", *lines]))
        for line in lines:
            logger.info("passed over: %s", line)
        golden = read_golden(bundle_dir, manifest)
        grey = np.full((*manifest.input_hw, 3), 128, np.uint8)
        best = fastest(started, grey if golden is None else golden.image)
        stack.pop_all()
    for backend in started:
        if backend is not best:
            backend.close()
    return best
