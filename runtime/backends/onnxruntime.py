"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np
import onnxruntime

from runtime.errors import BackendUnavailable

PROVIDER = "CPUExecutionProvider"


class OnnxRuntimeBackend:
    """A session with uint8 (1, H, W, 3) in and uint8 (1, H, W) out."""

    def __init__(self, model_path: Path, input_hw: tuple[int, int], num_threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.log_severity_level = (
            3  # errors alone; warnings there are about its own graph passes
        )
        try:
            self._session = onnxruntime.InferenceSession(
                str(model_path), options, providers=[PROVIDER]
            )
        except Exception as error:  # its exceptions have no common base
            reason = str(error).partition("\n")[0]
            raise BackendUnavailable(
                f"ONNX Runtime {onnxruntime.__version__} does not take {model_path}: {reason}"
            ) from None
        self._check(model_path, input_hw)
        self._input, self._output = self._session.get_inputs()[0].name, ["label_map"]
        threads = num_threads or "automatic"
        self.name = f"onnxruntime {onnxruntime.__version__} {PROVIDER}, {threads} threads"

    def _check(self, model_path: Path, input_hw: tuple[int, int]) -> None:
        """The graph is what the manifest says, and runs where it was asked to run."""
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shape, expected = inputs[0].shape, [1, *input_hw, 3]
        if inputs[0].type != "tensor(uint8)" or shape != expected:
            raise BackendUnavailable(
                f"{model_path} takes {inputs[0].type} {shape}, the manifest says uint8 {expected}"
            )
        if "label_map" not in [output.name for output in outputs]:
            raise BackendUnavailable(f"{model_path} has no output 'label_map'")
        if self._session.get_providers()[0] != PROVIDER:
            raise BackendUnavailable(f"asked for {PROVIDER}, got {self._session.get_providers()}")

    def infer(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB at the input size → (H, W) uint8 label map."""
        return self._session.run(self._output, {self._input: image[None]})[0][0]

    def __enter__(self) -> OnnxRuntimeBackend:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del self._session
