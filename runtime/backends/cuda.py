"""Cuda: the few calls of the CUDA driver that a backend makes, by cuda-bindings or by PyCUDA.

All of them go through here, so that a recorder in the tests can check their order, their sizes and
what is freed after an error. The primary context of the GPU is used, which other libraries in the
process share; ``current`` makes it the one of a thread, because a pipeline has several.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from runtime.closing import Closing
from runtime.errors import BackendUnavailable

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream


class Cuda(Closing, ABC):
    """A context and one stream on the first GPU; close it, or use it in a ``with``.

    Memory that is allocated here is freed with it.

    Attributes:
        name: of the library.
        has_graphs: whether it can record a CUDA graph.
        stream: the handle of the stream, for libraries that put work on it.
    """

    name: str
    has_graphs: bool
    stream: int

    @abstractmethod
    def current(self) -> AbstractContextManager[None]:
        """Within it, the context is current in the calling thread, as all calls need."""

    @abstractmethod
    def device_memory(self, num_bytes: int) -> int:
        """Address of new memory on the GPU."""

    @abstractmethod
    def pinned_memory(self, num_bytes: int) -> np.ndarray:
        """New memory of the host that the GPU can read and write at full speed, (N,) uint8."""

    @abstractmethod
    def copy_in(self, address: int, host: np.ndarray) -> None:
        """Put a copy from pinned memory to the GPU on the stream."""

    @abstractmethod
    def copy_out(self, host: np.ndarray, address: int) -> None:
        """Put a copy from the GPU to pinned memory on the stream."""

    @abstractmethod
    def wait(self) -> None:
        """Wait until the stream has done all its work."""

    def begin_graph(self) -> None:
        """Record what is put on the stream from now on, instead of doing it."""
        raise AssertionError(f"{self.name} records no graphs")

    def end_graph(self) -> None:
        """End the recording, and keep the graph."""
        raise AssertionError(f"{self.name} records no graphs")

    def launch_graph(self) -> None:
        """Put the recorded work on the stream."""
        raise AssertionError(f"{self.name} records no graphs")


def open_cuda_driver() -> Cuda:
    """The driver by cuda-bindings where that is installed, else by PyCUDA.

    Raises:
        BackendUnavailable: neither is, or there is no GPU.
    """
    try:
        return BindingsCuda(importlib.import_module("cuda.bindings.driver"))
    except ImportError:
        pass
    try:
        return PyCuda(importlib.import_module("pycuda.driver"))
    except ImportError as error:
        raise BackendUnavailable(
            f"CUDA needs cuda-bindings or pycuda ({error}): pip install cuda-bindings in the major "
            "version of this machine's CUDA"
        ) from None


class BindingsCuda(Cuda):
    """By NVIDIA's cuda-bindings."""

    name, has_graphs = "cuda-bindings", True

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._frees: list[tuple[str, Any]] = []
        try:
            self._call("cuInit", (0,))
            device = self._call("cuDeviceGet", (0,))
            self._context = self._call("cuDevicePrimaryCtxRetain", (device,))
            self._frees.append(("cuDevicePrimaryCtxRelease", device))
            self._call("cuCtxSetCurrent", (self._context,))
            self._stream = self._call("cuStreamCreate", (_NON_BLOCKING,))
            self._frees.append(("cuStreamDestroy", self._stream))
        except BaseException:
            self.close()
            raise
        self.stream = int(self._stream)
        self._executable: Any = None

    def _call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """A call's result.

        Raises:
            BackendUnavailable: the driver answers with an error.
        """
        try:
            error, *results = getattr(self._driver, name)(*arguments)
        except Exception as problem:  # there is no driver at all
            raise BackendUnavailable(f"CUDA: {name}: {problem}") from None
        if int(error) != 0:
            raise BackendUnavailable(f"CUDA: {name} failed: {getattr(error, 'name', error)}")
        return results[0] if results else None

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Within it, the context is current in the calling thread."""
        self._call("cuCtxSetCurrent", (self._context,))
        yield

    def device_memory(self, num_bytes: int) -> int:
        """Address of new memory on the GPU."""
        address = self._call("cuMemAlloc", (num_bytes,))
        self._frees.append(("cuMemFree", address))
        return int(address)

    def pinned_memory(self, num_bytes: int) -> np.ndarray:
        """New memory of the host, (N,) uint8."""
        address = int(self._call("cuMemHostAlloc", (num_bytes, 0)))
        self._frees.append(("cuMemFreeHost", address))
        return np.ctypeslib.as_array((ctypes.c_uint8 * num_bytes).from_address(address))

    def copy_in(self, address: int, host: np.ndarray) -> None:
        """Put a copy from pinned memory to the GPU on the stream."""
        self._call("cuMemcpyHtoDAsync", (address, host.ctypes.data, host.nbytes, self._stream))

    def copy_out(self, host: np.ndarray, address: int) -> None:
        """Put a copy from the GPU to pinned memory on the stream."""
        self._call("cuMemcpyDtoHAsync", (host.ctypes.data, address, host.nbytes, self._stream))

    def wait(self) -> None:
        """Wait until the stream has done all its work."""
        self._call("cuStreamSynchronize", (self._stream,))

    def begin_graph(self) -> None:
        """Record what is put on the stream from now on, instead of doing it."""
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", (self._stream, mode))

    def end_graph(self) -> None:
        """End the recording, and keep the graph."""
        graph = self._call("cuStreamEndCapture", (self._stream,))
        self._frees.append(("cuGraphDestroy", graph))
        self._executable = self._call("cuGraphInstantiate", (graph, 0))
        self._frees.append(("cuGraphExecDestroy", self._executable))

    def launch_graph(self) -> None:
        """Put the recorded work on the stream."""
        self._call("cuGraphLaunch", (self._executable, self._stream))

    def close(self) -> None:
        """Free everything, the newest first. Nobody can act on an error here."""
        if len(self._frees) > 1:
            self._driver.cuCtxSetCurrent(self._context)
        while self._frees:
            name, what = self._frees.pop()
            getattr(self._driver, name)(what)


class PyCuda(Cuda):
    """By PyCUDA, which records no graphs."""

    name, has_graphs = "PyCUDA", False

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._frees: list[Callable[[], None]] = []
        try:
            driver.init()
            self._context = driver.Device(0).retain_primary_context()
        except Exception as error:  # PyCUDA's own have no common base with a missing driver's
            raise BackendUnavailable(f"CUDA: {error}") from None
        try:
            with self.current():
                self._stream = driver.Stream(_NON_BLOCKING)
        except Exception as error:
            self._context.detach()
            raise BackendUnavailable(f"CUDA: {error}") from None
        self.stream = int(self._stream.handle)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Within it, the context is on top of the calling thread's stack."""
        self._context.push()
        try:
            yield
        finally:
            self._driver.Context.pop()

    def device_memory(self, num_bytes: int) -> int:
        """Address of new memory on the GPU."""
        memory = self._guarded(self._driver.mem_alloc, num_bytes)
        self._frees.append(memory.free)
        return int(memory)

    def pinned_memory(self, num_bytes: int) -> np.ndarray:
        """New memory of the host, (N,) uint8."""
        host: np.ndarray = self._guarded(self._driver.pagelocked_empty, num_bytes, np.uint8)
        self._frees.append(host.base.free)  # type: ignore[union-attr]
        return host

    def copy_in(self, address: int, host: np.ndarray) -> None:
        """Put a copy from pinned memory to the GPU on the stream."""
        self._guarded(self._driver.memcpy_htod_async, address, host, self._stream)

    def copy_out(self, host: np.ndarray, address: int) -> None:
        """Put a copy from the GPU to pinned memory on the stream."""
        self._guarded(self._driver.memcpy_dtoh_async, host, address, self._stream)

    def wait(self) -> None:
        """Wait until the stream has done all its work."""
        self._guarded(self._stream.synchronize)

    def _guarded(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except Exception as error:  # PyCUDA's own have no common base
            raise BackendUnavailable(f"CUDA: {error}") from None

    def close(self) -> None:
        """Free everything, the newest first."""
        if not hasattr(self, "_stream"):
            return
        with self.current():
            while self._frees:
                self._frees.pop()()
            del self._stream
        self._context.detach()
