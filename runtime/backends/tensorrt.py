"""TensorRT, or TensorRT for RTX, on the engine that ``python -m export.engine`` built here.

A frame is copied into pinned memory. From there on everything is work on one stream: the copy to
the GPU, the network, the copies back. A CUDA graph replays all of it with a single call.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.backends.base import Backend
from runtime.backends.cuda import Cuda, open_cuda_driver
from runtime.bundle.engine_file import (
    LIBRARIES,
    engine_paths,
    read_engine_record,
    require_loadable,
)
from runtime.bundle.engine_layers import computed_in, parse_inspection
from runtime.bundle.manifest import Manifest
from runtime.errors import BackendUnavailable
from runtime.gpu import find_gpu

logger = logging.getLogger(__name__)

if TYPE_CHECKING:  # TensorRT for RTX has the same interface; tests compare the names we use
    import tensorrt


def open_tensorrt_engine(
    name: str, bundle_dir: Path, manifest: Manifest, cuda_graph: bool = True
) -> TensorRtBackend:
    """The engine of a library in a bundle.

    Args:
        name: of the library, ``tensorrt`` or ``tensorrt-rtx``.
        bundle_dir: the bundle.
        manifest: of the bundle.
        cuda_graph: replay all work of a frame as one, where the CUDA library can.

    Raises:
        BackendUnavailable: there is no engine, it is for another GPU, version or model, or a
            library does not start.
    """
    gpu = find_gpu()
    if gpu is None:
        raise BackendUnavailable("no NVIDIA GPU, or no driver, which this backend needs")
    record = read_engine_record(bundle_dir, name)
    try:
        trt = importlib.import_module(LIBRARIES[name])
    except (ImportError, OSError) as error:
        raise BackendUnavailable(f"{name} does not start: {error}") from None
    if not hasattr(trt, "Runtime"):  # an empty folder, or stubs for type checkers
        raise BackendUnavailable(f"{name} is not installed")
    require_loadable(bundle_dir, record, manifest, library_version=_version(trt), gpu=gpu)
    engine = engine_paths(bundle_dir, name)[0].read_bytes()
    cuda = open_cuda_driver()
    with contextlib.ExitStack() as stack:
        stack.callback(cuda.close)
        backend = TensorRtBackend(name, trt, cuda, engine=engine, manifest=manifest)
        stack.callback(backend.close)  # first the engine, then the memory
        backend.provider = gpu.name
        backend.precision = backend.inspected() or record.precision
        if cuda_graph and cuda.has_graphs:
            try:
                backend.record_graph()
            except BackendUnavailable as error:
                logger.warning("%s runs without a CUDA graph: %s", name, error)
        graph = ", CUDA graph" if backend.replays else ""
        backend.library = f"{name} {record.library_version}, {cuda.name}{graph}"
        stack.pop_all()
        return backend
    raise AssertionError("an exit stack swallows no exception")


def _version(library: Any) -> str:
    return str(library.__version__)


def _deserialized(loader: tensorrt.Runtime, engine: bytes) -> tensorrt.ICudaEngine:
    """The engine; None where it does not load, whatever the stubs say."""
    return loader.deserialize_cuda_engine(engine)


def _sides(shape: tensorrt.Dims) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in range(len(shape)))


class TensorRtBackend(Backend):
    """A deserialised engine with fixed places in memory for its inputs and outputs.

    Args:
        name: of the library.
        trt: its module.
        cuda: the driver; closed with this.
        engine: as TensorRT serialised it.
        manifest: of the bundle.

    Raises:
        BackendUnavailable: the engine does not load, or is not what the manifest says.

    Attributes:
        replays: whether frames are replayed as a CUDA graph.
    """

    def __init__(
        self, name: str, trt: Any, cuda: Cuda, *, engine: bytes, manifest: Manifest
    ) -> None:
        self.name, self.library, self.provider, self.precision = name, name, "GPU", ""
        self._trt, self._cuda, self._names = trt, cuda, manifest.outputs
        self.replays = False
        self._host: dict[str, np.ndarray] = {}
        self._address: dict[str, int] = {}
        try:
            self._load(engine, manifest)
        except BaseException:
            self._free_engine()  # before its stream and its memory
            raise

    def _load(self, engine: bytes, manifest: Manifest) -> None:
        # No variable of this function holds the engine: after an error the traceback would keep it
        # alive beyond its context.
        messages = self._trt.Logger(self._trt.Logger.ERROR)
        with self._cuda.current():
            self._loader: tensorrt.Runtime = self._trt.Runtime(messages)
            self._engine = _deserialized(self._loader, engine)
            if self._engine is None:
                raise BackendUnavailable(
                    f"{self.name}: the engine does not load here; build it again"
                )
            self._context: tensorrt.IExecutionContext = self._engine.create_execution_context()
            if self._context is None:
                raise BackendUnavailable(f"{self.name}: the GPU has no memory left for the engine")
            count = self._engine.num_io_tensors
            names = [self._engine.get_tensor_name(index) for index in range(count)]
            self._input = self._input_of(names, manifest)
            for tensor in [self._input, *(each for each in names if each != self._input)]:
                self._place(tensor)
        if missing := set(manifest.outputs) - self._host.keys():
            raise BackendUnavailable(f"{self.name}: the engine has no output '{min(missing)}'")

    def _input_of(self, names: list[str], manifest: Manifest) -> str:
        """The input, set to one image.

        Raises:
            BackendUnavailable: it is not one of the manifest's size.
        """
        mode = self._trt.TensorIOMode.INPUT
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == mode]
        wanted = (1, *manifest.input_hw, 3)
        if len(inputs) == 1:
            shape = _sides(self._engine.get_tensor_shape(inputs[0]))
            if shape == (-1, *wanted[1:]):  # of a dynamic batch
                self._context.set_input_shape(inputs[0], wanted)
                shape = wanted
            kind = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(inputs[0])))
            if shape == wanted and kind == np.uint8:
                return inputs[0]
        raise BackendUnavailable(f"{self.name}: the engine does not take one image uint8 {wanted}")

    def _place(self, name: str) -> None:
        """Memory for a tensor, on both sides."""
        shape = _sides(self._context.get_tensor_shape(name))
        kind = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
        num_bytes = int(np.prod(shape)) * kind.itemsize
        self._address[name] = self._cuda.device_memory(num_bytes)
        pinned = self._cuda.pinned_memory(num_bytes)
        self._host[name] = pinned.view(kind).reshape(shape)
        if not self._context.set_tensor_address(name, self._address[name]):
            raise BackendUnavailable(f"{self.name}: the engine does not take memory for '{name}'")

    def inspected(self) -> str | None:
        """The precision of most layers that multiply; None where the engine lists no layers."""
        inspector = self._engine.create_engine_inspector()
        text = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        with contextlib.suppress(ValueError):
            return computed_in(parse_inspection(text))
        return None

    def record_graph(self) -> None:
        """Record the work of a frame as a CUDA graph, for all later frames.

        Raises:
            BackendUnavailable: the engine cannot be recorded.
        """
        with self._cuda.current():
            self._enqueue()  # the first run allocates, which no graph can hold
            self._cuda.wait()
            self._cuda.begin_graph()
            try:
                self._enqueue()
            except BackendUnavailable:
                with contextlib.suppress(BackendUnavailable):
                    self._cuda.end_graph()  # or the stream would go on recording
                raise
            self._cuda.end_graph()
        self.replays = True

    def _enqueue(self) -> None:
        """Put the work of a frame on the stream."""
        self._cuda.copy_in(self._address[self._input], self._host[self._input])
        if not self._context.execute_async_v3(self._cuda.stream):
            raise BackendUnavailable(f"{self.name}: the engine does not run")
        for name in self._names:
            self._cuda.copy_out(self._host[name], self._address[name])

    def outputs(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """(H, W, 3) uint8 RGB at the input size → all outputs by name."""
        self._host[self._input][0] = image
        with self._cuda.current():
            if self.replays:
                self._cuda.launch_graph()
            else:
                self._enqueue()
            self._cuda.wait()
        return {name: self._host[name][0].copy() for name in self._names}

    def close(self) -> None:
        """Free the engine, then the memory and the context."""
        try:
            self._free_engine()
        finally:
            self._cuda.close()

    def _free_engine(self) -> None:
        if "_loader" in self.__dict__:
            with self._cuda.current():
                for held in ("_context", "_engine", "_loader"):
                    self.__dict__.pop(held, None)
        self._host.clear()
