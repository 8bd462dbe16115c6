"""A GPU that is none: it keeps memory, a stream of work and graphs, and notes every call.

Work on the stream is done when somebody waits for it, as on a real one: who reads a result before
that reads old bytes. Wrong sizes, unknown addresses, a missing context and freeing twice fail.
"""
# ruff: noqa: N802 - NVIDIA's names

from __future__ import annotations

import ctypes
import threading
import weakref
from types import SimpleNamespace

import numpy as np


class FakeGpu:
    """Memory and work.

    Attributes:
        calls: names, in order.
        fail_at: number of the call that answers with an error; None for none.
    """

    def __init__(self, fail_at=None):
        self.calls, self.fail_at = [], fail_at
        self.memory, self.pinned = {}, {}
        self.handles = set()
        self.loaded = []  # engines and contexts of TensorRT, which free themselves
        self.current = threading.local()
        self.retained = 0
        self.work, self.captured, self.graphs = [], None, {}
        self._next = 0x1000

    def new(self, num_bytes=0x1000):
        """An address or handle that nobody has."""
        self._next += -(-num_bytes // 0x1000) * 0x1000
        return self._next

    def note(self, name):
        """Note a call; whether it fails."""
        self.calls.append(name)
        return self.fail_at is not None and len(self.calls) == self.fail_at

    def put(self, job):
        """Work on the stream, or in the graph that is recorded."""
        assert getattr(self.current, "context", None) is not None, "no context in this thread"
        (self.work if self.captured is None else self.captured).append(job)

    def copy(self, to, source, num_bytes):
        """Between a device address and a host address."""
        for address, blocks in ((to, self.memory), (source, self.memory)):
            if address in blocks:
                assert len(blocks[address]) == num_bytes, "a copy of another size"
        host = to if source in self.memory else source
        assert any(start <= host < start + len(a) for start, a in self.pinned.items()), "not pinned"
        if to in self.memory:
            self.put(lambda: self.memory[to].__setitem__(slice(None), bytes_at(source, num_bytes)))
        else:
            self.put(lambda: ctypes.memmove(to, self.memory[source].tobytes(), num_bytes))

    def wait(self):
        """Do the work."""
        assert self.captured is None, "waiting while a graph is recorded"
        for job in self.work:
            job()
        self.work.clear()

    @property
    def held(self):
        """What is not freed."""
        mine = [*self.memory, *self.pinned, *self.handles, *self.loaded]
        return mine + ["context"] * self.retained


def bytes_at(address, num_bytes):
    return np.frombuffer(ctypes.string_at(address, num_bytes), np.uint8)


OK, FAILED = 0, 2


class FakeBindings:
    """``cuda.bindings.driver`` on a fake GPU."""

    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)

    def __init__(self, gpu):
        self.gpu = gpu

    def _answer(self, name, make=lambda: None):
        if self.gpu.note(name):
            return (FAILED, None)
        made = make()
        return (OK,) if made is None else (OK, made)

    def cuInit(self, flags):
        return self._answer("cuInit")

    def cuDeviceGet(self, ordinal):
        return self._answer("cuDeviceGet", lambda: 7)

    def cuDevicePrimaryCtxRetain(self, dev):
        def retain():
            self.gpu.retained += 1
            return "context"

        return self._answer("cuDevicePrimaryCtxRetain", retain)

    def cuCtxSetCurrent(self, ctx):
        assert ctx == "context"
        return self._answer(
            "cuCtxSetCurrent", lambda: setattr(self.gpu.current, "context", ctx) or None
        )

    def _handle(self):
        handle = self.gpu.new()
        self.gpu.handles.add(handle)
        return handle

    def cuStreamCreate(self, flags):
        return self._answer("cuStreamCreate", self._handle)

    def cuMemAlloc(self, bytesize):
        def allocate():
            address = self.gpu.new(bytesize)
            self.gpu.memory[address] = np.zeros(bytesize, np.uint8)
            return address

        return self._answer("cuMemAlloc", allocate)

    def cuMemHostAlloc(self, bytesize, flags):
        def allocate():
            array = np.zeros(bytesize, np.uint8)
            self.gpu.pinned[array.ctypes.data] = array
            return array.ctypes.data

        return self._answer("cuMemHostAlloc", allocate)

    def cuMemcpyHtoDAsync(self, dst_device, src_host, byte_count, h_stream):
        assert h_stream in self.gpu.handles
        return self._answer(
            "cuMemcpyHtoDAsync", lambda: self.gpu.copy(dst_device, src_host, byte_count)
        )

    def cuMemcpyDtoHAsync(self, dst_host, src_device, byte_count, h_stream):
        assert h_stream in self.gpu.handles
        return self._answer(
            "cuMemcpyDtoHAsync", lambda: self.gpu.copy(dst_host, src_device, byte_count)
        )

    def cuStreamSynchronize(self, h_stream):
        return self._answer("cuStreamSynchronize", self.gpu.wait)

    def cuStreamBeginCapture(self, h_stream, mode):
        def begin():
            assert not self.gpu.work
            self.gpu.captured = []

        return self._answer("cuStreamBeginCapture", begin)

    def cuStreamEndCapture(self, h_stream):
        def end():
            graph = self._handle()
            self.gpu.graphs[graph], self.gpu.captured = self.gpu.captured, None
            return graph

        return self._answer("cuStreamEndCapture", end)

    def cuGraphInstantiate(self, h_graph, flags):
        def instantiate():
            executable = self._handle()
            self.gpu.graphs[executable] = self.gpu.graphs[h_graph]
            return executable

        return self._answer("cuGraphInstantiate", instantiate)

    def cuGraphLaunch(self, h_graph_exec, h_stream):
        return self._answer(
            "cuGraphLaunch",
            lambda: [self.gpu.put(j) for j in self.gpu.graphs[h_graph_exec]] and None,
        )

    def _free(self, name, kept, key):
        def free():
            assert key in kept, f"{name}: freed twice, or never there"
            kept.remove(key) if isinstance(kept, set) else kept.pop(key)

        return self._answer(name, free)

    def cuGraphExecDestroy(self, h_graph_exec):
        return self._free("cuGraphExecDestroy", self.gpu.handles, h_graph_exec)

    def cuGraphDestroy(self, h_graph):
        return self._free("cuGraphDestroy", self.gpu.handles, h_graph)

    def cuMemFree(self, dptr):
        return self._free("cuMemFree", self.gpu.memory, dptr)

    def cuMemFreeHost(self, p):
        return self._free("cuMemFreeHost", self.gpu.pinned, p)

    def cuStreamDestroy(self, h_stream):
        return self._free("cuStreamDestroy", self.gpu.handles, h_stream)

    def cuDevicePrimaryCtxRelease(self, dev):
        def release():
            assert self.gpu.held == ["context"], "released with memory"
            self.gpu.retained -= 1

        return self._answer("cuDevicePrimaryCtxRelease", release)


class PinnedArray(np.ndarray):
    """What PyCUDA's ``pagelocked_empty`` returns has a base that can be freed."""

    base = None


def fake_pycuda(gpu):
    """``pycuda.driver`` on a fake GPU."""

    def called(name):
        if gpu.note(name):
            raise RuntimeError(f"{name} failed: out of memory")

    class Context:
        def push(self):
            called("push")
            gpu.current.context = self

        @staticmethod
        def pop():
            called("pop")
            gpu.current.context = None

        def detach(self):
            called("detach")
            gpu.retained -= 1

    class Device:
        def __init__(self, number):
            called("Device")

        def retain_primary_context(self):
            called("retain_primary_context")
            gpu.retained += 1
            return Context()

    class Stream:
        def __init__(self, flags):
            called("Stream")
            self.handle = gpu.new()
            gpu.handles.add(self.handle)

        def synchronize(self):
            called("synchronize")
            gpu.wait()

        def __del__(self):
            gpu.handles.discard(getattr(self, "handle", None))

    class Allocation:
        def __init__(self, num_bytes):
            called("mem_alloc")
            self.address = gpu.new(num_bytes)
            gpu.memory[self.address] = np.zeros(num_bytes, np.uint8)

        def __int__(self):
            return self.address

        def free(self):
            called("free")
            del gpu.memory[self.address]

    def pagelocked_empty(num_bytes, kind):
        called("pagelocked_empty")
        array = np.zeros(num_bytes, kind)
        gpu.pinned[array.ctypes.data] = array
        pinned = array.view(PinnedArray)
        pinned.base = SimpleNamespace(
            free=lambda: (called("free"), gpu.pinned.pop(array.ctypes.data))
        )
        return pinned

    def htod(address, host, stream):
        called("memcpy_htod_async")
        gpu.copy(address, host.ctypes.data, host.nbytes)

    def dtoh(host, address, stream):
        called("memcpy_dtoh_async")
        gpu.copy(host.ctypes.data, address, host.nbytes)

    return SimpleNamespace(
        init=lambda: called("init"),
        Device=Device,
        Context=Context,
        Stream=Stream,
        mem_alloc=Allocation,
        pagelocked_empty=pagelocked_empty,
        memcpy_htod_async=htod,
        memcpy_dtoh_async=dtoh,
    )


def fake_tensorrt(gpu, shapes, *, layers="[]", loads=True, runs=True):
    """A ``tensorrt`` whose engines compute ``label_map = red % 5`` and ``confidence = green``.

    Args:
        gpu: the fake one.
        shapes: of the tensors, by name; the first is the input.
        layers: what the inspector lists, as JSON.
        loads, runs: whether an engine does.
    """
    mode = SimpleNamespace(INPUT="input", OUTPUT="output")

    class OnGpu:
        def __init__(self):
            gpu.loaded.append(id(self))

        def __del__(self):
            if getattr(gpu.current, "context", None) is not None:  # else it stays there
                gpu.loaded.remove(id(self))

    class Execution(OnGpu):
        def __init__(self):
            super().__init__()
            self.shapes, self.places = dict(shapes), {}

        def set_input_shape(self, name, shape):
            for each in self.shapes:
                self.shapes[each] = (shape[0], *self.shapes[each][1:])

        def get_tensor_shape(self, name):
            return self.shapes[name]

        def set_tensor_address(self, name, address):
            self.places[name] = address
            return address in gpu.memory

        def execute_async_v3(self, stream):
            assert stream in gpu.handles
            if not runs:
                return False
            whole = weakref.ref(self)  # a graph does not keep it alive
            gpu.put(lambda: whole()._compute())
            return True

        def _compute(self):
            names = list(self.shapes)
            image = gpu.memory[self.places[names[0]]].reshape(self.shapes[names[0]])
            results = {"label_map": image[..., 0] % 5, "confidence": image[..., 1]}
            for name in names[1:]:
                gpu.memory[self.places[name]][:] = results[name].reshape(-1)

    class Engine(OnGpu):
        num_io_tensors = len(shapes)

        def get_tensor_name(self, index):
            return list(shapes)[index]

        def get_tensor_mode(self, name):
            return mode.INPUT if name == next(iter(shapes)) else mode.OUTPUT

        def get_tensor_shape(self, name):
            return shapes[name]

        def get_tensor_dtype(self, name):
            return "UINT8"

        def create_execution_context(self):
            return Execution()

        def create_engine_inspector(self):
            text = f'{{"Layers": {layers}}}'
            return SimpleNamespace(get_engine_information=lambda _format: text)

    class Logger:
        ERROR = 1

        def __init__(self, level):
            pass

    class Runtime:
        def __init__(self, logger):
            assert getattr(gpu.current, "context", None) is not None

        def deserialize_cuda_engine(self, engine):
            return Engine() if loads else None

    return SimpleNamespace(
        __version__="10.13.0",
        Logger=Logger,
        Runtime=Runtime,
        TensorIOMode=mode,
        LayerInformationFormat=SimpleNamespace(JSON="json"),
        nptype=lambda _kind: np.uint8,
    )
