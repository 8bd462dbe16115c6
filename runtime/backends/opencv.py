"""OpenCV's own network module, for machines that have nothing else."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from runtime.backends.base import Backend
from runtime.bundle.manifest import Manifest
from runtime.errors import BackendUnavailable


class OpenCvBackend(Backend):
    """A network of cv2.dnn on the CPU, where it takes the graph.

    Raises:
        BackendUnavailable: OpenCV rejects the graph.
    """

    name = "opencv"

    def __init__(self, model_path: Path, manifest: Manifest, num_threads: int) -> None:
        if manifest.precision != "fp32":
            raise BackendUnavailable(
                f"opencv takes bundles in fp32, {model_path.parent} is {manifest.precision}"
            )
        if num_threads:
            cv2.setNumThreads(num_threads)
        self._names = list(manifest.outputs)
        try:
            self._network = cv2.dnn.readNetFromONNX(str(model_path))
            self.outputs(np.zeros((*manifest.input_hw, 3), np.uint8))
        except (cv2.error, IndexError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise BackendUnavailable(f"OpenCV rejects {model_path}: {reason}") from None
        self.library = f"OpenCV {cv2.__version__}, {cv2.getNumThreads()} threads"
        self.provider, self.precision = "CPU", "fp32"

    def outputs(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """(H, W, 3) uint8 RGB at the input size → all outputs by name."""
        self._network.setInput(image[None])
        found = self._network.forward(self._names)
        return {name: output[0] for name, output in zip(self._names, found, strict=True)}

    def close(self) -> None:
        """Free the network."""
        self.__dict__.pop("_network", None)
