"""OpenVINO on an x86 CPU."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from runtime.backends.base import Backend
from runtime.bundle.manifest import Manifest
from runtime.errors import BackendUnavailable

_PRECISIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
_HEAVY = ("Convolution", "FullyConnected", "MatMul", "Deconvolution", "GroupConvolution")


class OpenVinoBackend(Backend):
    """A compiled model on the CPU, which computes in fp32.

    Without the hint OpenVINO takes bf16 on processors that have it, and 1 to 2 % of the labels
    change.

    Raises:
        BackendUnavailable: OpenVINO rejects the graph.
    """

    name = "openvino"

    def __init__(self, model_path: Path, manifest: Manifest, num_threads: int) -> None:
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        if num_threads:
            settings["INFERENCE_NUM_THREADS"] = num_threads
        try:
            model = openvino.Core().read_model(model_path)
            model.reshape([1, *manifest.input_hw, 3])
            compiled = compiled_apart(model, settings)
            self._outputs = {name: compiled.output(name) for name in manifest.outputs}
            self._request = compiled.create_infer_request()
        except Exception as error:  # its exceptions have no common base
            reason = str(error).strip().splitlines()[-1]
            raise BackendUnavailable(f"OpenVINO rejects {model_path}: {reason}") from None
        threads = compiled.get_property("INFERENCE_NUM_THREADS")
        version = openvino.get_version().split("-")[0]
        self.library = f"OpenVINO {version}, {threads} threads"
        self.provider = "CPU"
        self.precision = _precision(compiled)

    def outputs(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """(H, W, 3) uint8 RGB at the input size → all outputs by name."""
        found = self._request.infer([image[None]])
        return {name: found[output][0].copy() for name, output in self._outputs.items()}

    def close(self) -> None:
        """Free the model."""
        self.__dict__.pop("_request", None)


def compiled_apart(model: openvino.Model | str, settings: dict[str, Any]) -> openvino.CompiledModel:
    """The model compiled for the CPU, by a thread that ends.

    The CPU plugin gives the thread that loads it another stack for signals, and frees that stack
    with itself: in another thread, the first one keeps the freed memory, and the next Ctrl-C that
    Python's handler takes there is a crash.
    """
    compiled: Future[openvino.CompiledModel] = Future()

    def compile_model() -> None:
        try:
            compiled.set_result(openvino.Core().compile_model(model, "CPU", settings))
        except Exception as error:  # its exceptions have no common base
            compiled.set_exception(error)

    thread = threading.Thread(target=compile_model)
    thread.start()
    thread.join()
    return compiled.result()


def _precision(compiled: openvino.CompiledModel) -> str:
    """What most convolutions and matrix products compute in, from the model as it is executed."""
    kinds: Counter[str] = Counter()
    for layer in compiled.get_runtime_model().get_ops():
        facts = layer.get_rt_info()
        if facts["layerType"].astype(str) in _HEAVY:
            kind = facts["runtimePrecision"].astype(str)
            kinds[_PRECISIONS.get(kind, kind)] += 1
    return kinds.most_common(1)[0][0] if kinds else "unknown"
