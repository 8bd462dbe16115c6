"""Backends: what runs a bundle's model. ``with open_backend(name, bundle) as backend: …``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from runtime.bundle.manifest import Manifest
from runtime.errors import BackendUnavailable


class Backend(Protocol):
    """Runs one model on one image at a time.

    Attributes:
        name: library, its version, the device and the number of threads, for records.
    """

    name: str

    def infer(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB at the input size → (H, W) uint8 label map."""
        ...

    def outputs(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """The same image → all outputs of the model, by the manifest's names."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...

    def __enter__(self) -> Backend: ...

    def __exit__(self, *_: object) -> None: ...


Opener = Callable[[Path, Manifest, int], Backend]


def _open_onnxruntime(model_path: Path, manifest: Manifest, num_threads: int) -> Backend:
    try:
        import onnxruntime  # noqa: F401 - a missing library is told from a broken module of ours
    except ImportError as error:
        raise BackendUnavailable(
            f"backend 'onnxruntime' does not start ({error}): pip install 'sfda-edge[runtime-cpu]'"
        ) from None
    from runtime.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(model_path, manifest, num_threads)


BACKENDS: dict[str, Opener] = {"onnxruntime": _open_onnxruntime}


def open_backend(name: str, bundle_dir: Path, manifest: Manifest, num_threads: int = 0) -> Backend:
    """Open a bundle's model.

    Args:
        name: one of ``BACKENDS``.
        bundle_dir: the bundle.
        manifest: as ``read_manifest`` checked it.
        num_threads: for one inference; 0 lets the library choose.

    Raises:
        BackendUnavailable: unknown, not installed, or it does not take the model.
    """
    if name not in BACKENDS:
        raise BackendUnavailable(f"unknown backend '{name}'; known: {', '.join(BACKENDS)}")
    return BACKENDS[name](bundle_dir / manifest.model_file, manifest, num_threads)
