"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from runtime.backends.ort_session import PROVIDER, open_session
from runtime.bundle.manifest import LABEL_MAP, Manifest
from runtime.closing import Closing
from runtime.errors import BackendUnavailable


class OnnxRuntimeBackend(Closing):
    """A session with uint8 (1, H, W, 3) in and the manifest's outputs out."""

    def __init__(self, model_path: Path, manifest: Manifest, num_threads: int) -> None:
        self._session = open_session(model_path, num_threads)
        self._check(model_path, manifest)
        self._input, self._names = self._session.get_inputs()[0].name, list(manifest.outputs)
        threads = num_threads or "automatic"
        self.name = f"onnxruntime {onnxruntime.__version__} {PROVIDER}, {threads} threads"

    def _check(self, model_path: Path, manifest: Manifest) -> None:
        """The graph is what the manifest says, and runs where it was asked to run."""
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shape, expected = inputs[0].shape, [1, *manifest.input_hw, 3]
        if isinstance(shape[0], str):  # a dynamic batch takes one image as well
            shape = [1, *shape[1:]]
        if inputs[0].type != "tensor(uint8)" or shape != expected:
            raise BackendUnavailable(
                f"{model_path} takes {inputs[0].type} {shape}, the manifest has uint8 {expected}"
            )
        if missing := set(manifest.outputs) - {output.name for output in outputs}:
            raise BackendUnavailable(f"{model_path} has no output '{min(missing)}'")
        recorded = self._session.get_modelmeta().custom_metadata_map
        differing = [k for k, v in manifest.interface().items() if recorded.get(k, v) != v]
        if differing:
            raise BackendUnavailable(
                f"{model_path} and the manifest beside it differ in {', '.join(differing)}: one of "
                "them was changed; export the bundle again"
            )
        if self._session.get_providers()[0] != PROVIDER:
            raise BackendUnavailable(f"asked for {PROVIDER}, got {self._session.get_providers()}")

    def infer(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB at the input size → (H, W) uint8 label map."""
        return self._session.run([LABEL_MAP], {self._input: image[None]})[0][0]

    def outputs(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """(H, W, 3) uint8 RGB at the input size → all outputs by name."""
        found = self._session.run(self._names, {self._input: image[None]})
        return {name: output[0] for name, output in zip(self._names, found, strict=True)}

    def close(self) -> None:
        """Free the session."""
        self.__dict__.pop("_session", None)
