"""ONNX Runtime on an NVIDIA GPU: its CUDA provider, and its TensorRT provider.

Input and outputs stay at fixed addresses on the GPU (I/O binding), so that one CUDA graph replays
all kernels of a frame.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from runtime.backends.onnxruntime import OnnxRuntimeBackend
from runtime.backends.ort_session import Provider
from runtime.bundle.manifest import Manifest
from runtime.errors import BackendUnavailable
from runtime.files import printable_line
from runtime.gpu import Gpu, find_gpu

logger = logging.getLogger(__name__)

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"


def open_cuda(bundle_dir: Path, manifest: Manifest, cuda_graph: bool = True) -> OnnxRuntimeBackend:
    """The CUDA provider.

    Args:
        bundle_dir: the bundle.
        manifest: of the bundle.
        cuda_graph: replay all kernels of a frame as one.

    Raises:
        BackendUnavailable: it does not start, or does not run the layers.
    """
    _require_provider(CUDA)
    _load_cuda_wheels()
    providers: list[Provider] = [(CUDA, cuda_options(cuda_graph))]
    path = bundle_dir / manifest.model_file
    return BoundBackend("onnxruntime-cuda", path, manifest, providers=providers)


def open_tensorrt(
    bundle_dir: Path, manifest: Manifest, cuda_graph: bool = True
) -> OnnxRuntimeBackend:
    """The TensorRT provider; CUDA runs what it does not take. Engines are cached.

    Args:
        bundle_dir: the bundle.
        manifest: of the bundle.
        cuda_graph: replay all kernels of a frame as one.

    Raises:
        BackendUnavailable: it does not start, or does not run the layers.
    """
    gpu = _require_provider(TENSORRT)
    _load_cuda_wheels()
    with contextlib.suppress(ImportError, OSError):  # JetPack's library is found without
        importlib.import_module("tensorrt")  # the wheel loads its libraries for the whole process
    cache = engine_cache(bundle_dir, manifest, gpu)
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BackendUnavailable(
            f"onnxruntime-tensorrt keeps its engines in {cache}, which cannot be made: "
            f"{error.strerror}; put the bundle where this user may write"
        ) from None
    options = tensorrt_options(cache, manifest.precision, cuda_graph)
    providers: list[Provider] = [(TENSORRT, options), (CUDA, cuda_options(cuda_graph=False))]
    path = bundle_dir / manifest.model_file
    return BoundBackend("onnxruntime-tensorrt", path, manifest, providers=providers)


def cuda_options(cuda_graph: bool) -> dict[str, Any]:
    """Without TF32, whose products have 10 bits: fp32 means fp32 here. fp16 is the way to speed."""
    return {"device_id": 0, "use_tf32": 0, "enable_cuda_graph": int(cuda_graph)}


def tensorrt_options(cache: Path, precision: str, cuda_graph: bool) -> dict[str, Any]:
    """Types as the graph has them, and engines kept from one start to the next."""
    return {
        "device_id": 0,
        "trt_fp16_enable": precision == "fp16",
        "trt_int8_enable": precision == "int8",
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(cache),
        "trt_cuda_graph_enable": cuda_graph,
    }


def engine_cache(bundle_dir: Path, manifest: Manifest, gpu: Gpu) -> Path:
    """The folder beside the bundle for engines of this graph, library and kind of GPU."""
    model = manifest.sha256[manifest.model_file][:16]
    here = f"{model}-ort{onnxruntime.__version__}-sm{gpu.compute_capability.replace('.', '')}"
    folder = bundle_dir.resolve()
    return folder.with_name(f".{folder.name}.engines") / here


def _require_provider(name: str) -> Gpu:
    """Ask before ONNX Runtime takes another provider in silence.

    Raises:
        BackendUnavailable: no GPU, or this ONNX Runtime was built without the provider.
    """
    gpu = find_gpu()
    if gpu is None:
        raise BackendUnavailable("no NVIDIA GPU, or no driver, which this backend needs")
    if name not in onnxruntime.get_available_providers():
        raise BackendUnavailable(
            f"ONNX Runtime {onnxruntime.__version__} has no {name}: pip install onnxruntime-gpu"
        )
    return gpu


def _load_cuda_wheels() -> None:
    """Load CUDA and cuDNN from NVIDIA's wheels, where the system's loader does not look.

    What is missing ONNX Runtime prints; results may be on standard output, so that it is logged.
    """
    load = getattr(onnxruntime, "preload_dlls", None)  # since 1.21
    if load is None:
        return
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        load()
    for line in printed.getvalue().splitlines():
        logger.warning("ONNX Runtime: %s", printable_line(line))


class BoundBackend(OnnxRuntimeBackend):
    """A session whose input and outputs have fixed places in a device's memory."""

    device = "cuda"

    def _bind(self, image: np.ndarray) -> None:
        """Allocate once; the shapes of a bundle are fixed."""
        self.max_batch = 1  # the places in memory are of one image
        self._on_device = onnxruntime.OrtValue.ortvalue_from_numpy(image[None], self.device, 0)
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(self._input, self._on_device)
        for name in self._names:
            self._binding.bind_output(name, self.device)
        self._session.run_with_iobinding(self._binding)
        # The addresses that the first run has chosen are those of all later ones.
        self._results = dict(zip(self._names, self._binding.get_outputs(), strict=True))
        for name, value in self._results.items():
            self._binding.bind_ortvalue_output(name, value)

    def outputs(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """(H, W, 3) uint8 RGB at the input size → all outputs by name."""
        if not hasattr(self, "_binding"):
            self._bind(image)
        self._on_device.update_inplace(np.ascontiguousarray(image[None]))
        self._session.run_with_iobinding(self._binding)
        return {name: value.numpy()[0].copy() for name, value in self._results.items()}

    def close(self) -> None:
        """Free binding, memory and session."""
        for held in ("_binding", "_results", "_on_device"):
            self.__dict__.pop(held, None)
        super().close()
