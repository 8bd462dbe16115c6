"""ONNX Runtime on the CPU, on CUDA, or through its TensorRT provider."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from runtime.backends.base import Backend
from runtime.backends.ort_profile import Profile, read_profile
from runtime.backends.ort_session import CPU, Provider, open_session
from runtime.bundle.manifest import Manifest
from runtime.errors import BackendUnavailable

MAX_BATCH = 8  # of a graph with a dynamic batch: more waits longer than it gains


class OnnxRuntimeBackend(Backend):
    """A session with uint8 (1, H, W, 3) in and the manifest's outputs out.

    Args:
        name: of the backend.
        model_path: the bundle's graph.
        manifest: of the bundle.
        num_threads: of one inference on the CPU; 0 lets ONNX Runtime choose.
        providers: the wanted one first; those after it may run what it does not take.

    Raises:
        BackendUnavailable: the graph is not what the manifest says, or another provider ran it.
    """

    def __init__(
        self,
        name: str,
        model_path: Path,
        manifest: Manifest,
        *,
        num_threads: int = 0,
        providers: Sequence[Provider] = ((CPU, {}),),
    ) -> None:
        self.name = name
        with tempfile.TemporaryDirectory() as folder:
            # Reading, drawing and encoding need the processor between two inferences. Threads that
            # spin on cost 720p with video a tenth of its rate with a small network on two cores.
            self._session = open_session(
                model_path, num_threads, providers, Path(folder, "profile"), spin=False
            )
            if _require_interface(self._session, model_path, manifest):
                self.max_batch = MAX_BATCH
            self._input, self._names = self._session.get_inputs()[0].name, list(manifest.outputs)
            self._check_outputs(model_path, manifest.input_hw)
            profile = read_profile(Path(self._session.end_profiling()))
        self._require_provider(profile, [provider for provider, _ in providers])
        self.provider, self.precision = profile.provider, profile.precision
        threads = f", {num_threads or 'automatic'} threads" if providers[0][0] == CPU else ""
        self.library = f"ONNX Runtime {onnxruntime.__version__}{threads}"

    def _check_outputs(self, model_path: Path, input_hw: tuple[int, int]) -> None:
        """One run, which is profiled: its outputs have to be what sinks and checks can take."""
        try:
            outputs = self.outputs(np.zeros((*input_hw, 3), np.uint8))
        except Exception as error:  # its exceptions have no common base
            reason = str(error).partition("\n")[0]
            raise BackendUnavailable(f"{model_path} does not run: {reason}") from None
        for name, axes, kind in (("label_map", 2, np.uint8), ("confidence", 2, np.uint8)):
            found = outputs.get(name)
            if found is not None and (found.ndim != axes or found.dtype != kind):
                raise BackendUnavailable(
                    f"{model_path}: output '{name}' is (1, {', '.join(map(str, found.shape))}) of "
                    f"{found.dtype}, expected (1, h, w) of uint8; export the bundle again"
                )

    def _require_provider(self, profile: Profile, wanted: list[str]) -> None:
        first = wanted[0]
        if first not in profile.providers:
            raise BackendUnavailable(
                f"{self.name}: {first} ran none of the layers, {profile.provider} did"
            )

    def outputs(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """(H, W, 3) uint8 RGB at the input size → all outputs by name."""
        return self._run(image[None])[0]

    def batch_outputs(self, images: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
        """The same for at most ``max_batch`` images."""
        if self.max_batch == 1:
            return [self.outputs(image) for image in images]
        return self._run(np.stack(images))

    def _run(self, images: np.ndarray) -> list[dict[str, np.ndarray]]:
        """(N, H, W, 3) → the outputs of each."""
        found = self._session.run(self._names, {self._input: images})
        return [dict(zip(self._names, one, strict=True)) for one in zip(*found, strict=True)]

    def close(self) -> None:
        """Free the session."""
        self.__dict__.pop("_session", None)


def _require_interface(
    session: onnxruntime.InferenceSession, model_path: Path, manifest: Manifest
) -> bool:
    """The graph is what the manifest says; whether it takes several images at once.

    Raises:
        BackendUnavailable: it is not.
    """
    first, shape = session.get_inputs()[0], list(session.get_inputs()[0].shape)
    expected = [1, *manifest.input_hw, 3]
    dynamic = bool(shape) and isinstance(shape[0], str)
    if dynamic:
        shape = [1, *shape[1:]]
    if first.type != "tensor(uint8)" or shape != expected:
        raise BackendUnavailable(
            f"{model_path} takes {first.type} {shape}, the manifest has uint8 {expected}"
        )
    if missing := set(manifest.outputs) - {output.name for output in session.get_outputs()}:
        raise BackendUnavailable(f"{model_path} has no output '{min(missing)}'")
    recorded = session.get_modelmeta().custom_metadata_map
    differing = [k for k, v in manifest.interface().items() if recorded.get(k, v) != v]
    if differing:
        raise BackendUnavailable(
            f"{model_path} and the manifest beside it differ in {', '.join(differing)}: one of "
            "them was changed; export the bundle again"
        )
    return dynamic
