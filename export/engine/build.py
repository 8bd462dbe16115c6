"""Drive TensorRT's builder: one code path for TensorRT 10, 11 and TensorRT for RTX."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.engine.layers import inspected_layers, io_types, typed_layers
from export.engine.proof import require_precision
from export.errors import ExportError
from runtime.bundle.engine_file import LIBRARIES

if TYPE_CHECKING:  # TensorRT for RTX has the same interface; tests compare the names we use
    import tensorrt

logger = logging.getLogger("export.engine")
_ADVICE = {
    "tensorrt": "on a Jetson it comes with JetPack (python3-libnvinfer); elsewhere: pip install "
    "tensorrt",
    "tensorrt-rtx": "pip install 'sfda-edge[tensorrt-rtx]'",
}
# Levels of effort to try in turn when the builder runs out of memory; 3 is its default.
_LEVELS = (3, 1, 0)
_MIB = 1 << 20


@dataclass(frozen=True)
class Build:
    """What to build.

    Attributes:
        onnx_path: the graph, with its precision in it.
        precision: what the graph computes in, to be proved.
        single: names of nodes that stay in single precision on purpose.
        compute_capability: to build for, such as 8.9; None for the GPU that is here.
        can_load: whether the engine can be loaded here, and looked into.
        workspace_mib: limit of the builder's trials.
        max_batch: of a graph with a dynamic batch.
        timing_cache: of an earlier build, or empty; None for TensorRT for RTX, which measures on
            the device and has none.
    """

    onnx_path: Path
    precision: str
    single: tuple[str, ...]
    compute_capability: str | None
    can_load: bool
    workspace_mib: int
    max_batch: int
    timing_cache: bytes | None


@dataclass(frozen=True, eq=False)
class Built:
    """What came out; see ``EngineRecord`` for the fields."""

    engine: bytes
    timing_cache: bytes
    optimization_level: int
    proved_by: str
    layer_types: dict[str, int]
    io_types: dict[str, str]
    seconds: float

    @property
    def sha256(self) -> str:
        """Of the engine."""
        return hashlib.sha256(self.engine).hexdigest()

    @property
    def timing_cache_sha256(self) -> str | None:
        """Of the timing cache, if there is one."""
        return hashlib.sha256(self.timing_cache).hexdigest() if self.timing_cache else None


def load_library(name: str) -> Any:
    """TensorRT or TensorRT for RTX, whose Python interfaces are alike.

    Raises:
        ExportError: it is not installed, or does not start.
    """
    try:
        module = importlib.import_module(LIBRARIES[name])
    except (ImportError, OSError) as error:
        raise ExportError(f"{name} does not start ({error}): {_ADVICE[name]}") from None
    if not hasattr(module, "Builder"):  # an empty folder or stubs for type checkers
        raise ExportError(f"{name} is not installed: {_ADVICE[name]}")
    return module


def build(trt: Any, wanted: Build) -> Built:
    """Build an engine and prove its precision.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed meanwhile.
        ExportError: the builder does not start or fails, or the result is of another precision.
    """
    began_s = time.monotonic()
    messages = _log_to(trt)
    try:
        builder: tensorrt.Builder = trt.Builder(messages)
    except (TypeError, RuntimeError) as error:
        raise ExportError(f"{trt.__name__} does not start here: {messages.reason(error)}") from None
    network = _parsed(trt, builder, messages, wanted.onnx_path)
    typed = typed_layers(network)
    require_precision(typed, wanted.precision, wanted.single)
    for level in _LEVELS:
        monitor = _monitor(trt)
        config = _configured(trt, builder, network=network, wanted=wanted, level=level)
        config.progress_monitor = monitor
        with _stoppable(monitor):
            serialized = builder.build_serialized_network(network, config)
        if serialized is not None:
            break
        logger.warning("the build failed at effort %d: %s", level, messages.reason())
    else:
        raise ExportError(
            f"{trt.__name__} cannot build this graph: {messages.reason()}; if the machine ran out "
            "of memory, try python -m export.engine BUNDLE with a smaller --workspace-mib; if the "
            "builder wants more, with a larger one"
        )
    timings = config.get_timing_cache() if wanted.timing_cache is not None else None
    cached = bytes(timings.serialize()) if timings is not None else b""
    engine = bytes(serialized)
    proof, layers = "typed network definition", typed
    if wanted.can_load:
        proof, layers = "engine inspector", inspected_layers(trt, messages, engine)
        require_precision(layers, wanted.precision, wanted.single)
    return Built(
        engine=engine,
        timing_cache=cached,
        optimization_level=level,
        proved_by=proof,
        layer_types=dict(Counter(f"{layer.kind} {layer.type}" for layer in layers).most_common()),
        io_types=io_types(network),
        seconds=time.monotonic() - began_s,
    )


def _log_to(trt: Any) -> Any:
    """TensorRT's logger, writing to ours and keeping the last error for messages of our own."""

    class Messages(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = ""

        def log(self, severity: Any, message: str) -> None:
            levels = {
                trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
                trt.ILogger.Severity.ERROR: logging.ERROR,
                trt.ILogger.Severity.WARNING: logging.WARNING,
            }
            level = levels.get(severity, logging.DEBUG)
            if level == logging.ERROR:
                self.last_error = message.strip()
                level = logging.DEBUG  # said once, in the error that follows
            logger.log(level, "%s", message.strip())

        def reason(self, error: BaseException | None = None) -> str:
            return self.last_error or str(error or "no reason given")

    return Messages()


def _parsed(
    trt: Any, builder: tensorrt.Builder, messages: Any, onnx_path: Path
) -> tensorrt.INetworkDefinition:
    """The network; it keeps the parser, in whose memory its weights are."""
    # TensorRT 11 has strongly typed networks alone and takes the flag for nothing.
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser: tensorrt.OnnxParser = trt.OnnxParser(network, messages)
    if not parser.parse(onnx_path.read_bytes()):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise ExportError(f"{trt.__name__} does not take {onnx_path.name}: {'; '.join(errors[:3])}")
    return network


def _configured(
    trt: Any,
    builder: tensorrt.Builder,
    network: tensorrt.INetworkDefinition,
    wanted: Build,
    level: int,
) -> tensorrt.IBuilderConfig:
    config = builder.create_builder_config()
    config.builder_optimization_level = level
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, wanted.workspace_mib * _MIB)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # what the inspector reads
    # Multiplications with mantissas of 10 bits are not the single precision that was asked for.
    config.clear_flag(trt.BuilderFlag.TF32)
    if wanted.timing_cache is not None:
        _set_timings(config, wanted.timing_cache)
    if wanted.compute_capability is not None:
        _build_for(trt, config, wanted.compute_capability)
    image = network.get_input(0)
    if image.shape[0] != -1 and wanted.max_batch > 1:
        raise ExportError(
            f"--max-batch {wanted.max_batch} of a bundle that takes one image at once; export it "
            "with --dynamic-batch"
        )
    if image.shape[0] == -1:
        profile = builder.create_optimization_profile()
        one, most = (trt.Dims((n, *image.shape[1:])) for n in (1, wanted.max_batch))
        profile.set_shape(image.name, one, most, most)
        config.add_optimization_profile(profile)
    return config


def _build_for(trt: Any, config: Any, capability: str) -> None:
    """Build for a GPU that need not be here."""
    config.num_compute_capabilities = 1
    config.set_compute_capability(named_capability(trt, capability), 0)


def named_capability(trt: Any, capability: str) -> Any:
    """The library's own value for one of a GPU, such as 8.9.

    Raises:
        ExportError: the library cannot build for others than the GPU here, or knows no such GPU.
    """
    names = [name for name in dir(getattr(trt, "ComputeCapability", None)) if name.startswith("SM")]
    known = {f"{name[2:-1]}.{name[-1]}": name for name in names}
    if capability not in known:
        listed = f"known: {', '.join(known)}" if known else "it builds only for the GPU here"
        raise ExportError(
            f"{trt.__name__} cannot build for compute capability {capability}; {listed}"
        )
    return getattr(trt.ComputeCapability, known[capability])


def _set_timings(config: tensorrt.IBuilderConfig, earlier: bytes) -> None:
    """Begin with the measurements of an earlier build, if they are of this kind of GPU."""
    if not config.set_timing_cache(config.create_timing_cache(earlier), False):
        logger.warning("the timing cache is of another GPU or version: measuring anew")
        config.set_timing_cache(config.create_timing_cache(b""), False)


@contextlib.contextmanager
def _stoppable(monitor: Any) -> Iterator[None]:
    """Ctrl-C asks the builder to stop at its next step; an exception cannot pass through it.

    Raises:
        KeyboardInterrupt: at the end, when it was asked.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: monitor.stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if monitor.stopped:
        raise KeyboardInterrupt


def _monitor(trt: Any) -> Any:
    """Progress of the build on a terminal, and the way to stop it."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}
            self.stopped = False

        def stop(self) -> None:
            self.stopped = True

        def phase_start(self, phase_name: str, _parent: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            if sys.stderr.isatty():
                done = f"{phase_name}: {step + 1} of {self._steps[phase_name]}"
                sys.stderr.write(f"\r\033[K{done[:100]}")
                sys.stderr.flush()
            return not self.stopped

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)
            if not self._steps and sys.stderr.isatty():
                sys.stderr.write("\r\033[K")

    return Monitor()
