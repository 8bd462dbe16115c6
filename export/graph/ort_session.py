"""Run ONNX graphs on the CPU while exporting: outputs by name, and the values inside."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx

from export.errors import ExportError
from export.graph.to_onnx import INPUT_NAME
from runtime.backends.ort_session import open_session
from runtime.errors import BackendUnavailable

# Values of an image that are looked at in one pass: all at once may need the memory of a training
# step. What an exported graph holds has a known shape but for its first axis.
_BYTES_A_PASS = 2**30
# How long graphs are timed.
_TIMED_FRAMES, _UNCOUNTED, _ROUNDS, _TIMED_S = 8, 2, 10, 30.0


class GraphSession:
    """A graph in ONNX Runtime.

    Raises:
        ExportError: ONNX Runtime rejects it.
    """

    def __init__(self, graph: onnx.ModelProto) -> None:
        try:
            self._session = open_session(graph.SerializeToString())
        except BackendUnavailable as error:
            raise ExportError(str(error)) from None
        self.names = [output.name for output in self._session.get_outputs()]

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Image (H, W, 3) uint8 → the graph's outputs by name, without the batch axis."""
        return {name: answer[0] for name, answer in self.whole(image).items()}

    def whole(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """The same as they are: what is inside a graph need not begin with the batch axis."""
        return self.of_batch(image[None])

    def of_batch(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Images (N, H, W, 3) uint8, of a graph that takes N → its outputs by name.

        Raises:
            ExportError: ONNX Runtime fails while it runs the graph.
        """
        try:
            found = self._session.run(None, {INPUT_NAME: images})
        except Exception as error:  # its exceptions have no common base
            reason = str(error).partition("\n")[0]
            raise ExportError(f"ONNX Runtime cannot run the graph: {reason}") from None
        return dict(zip(self.names, found, strict=True))


def median_ms(graphs: Sequence[onnx.ModelProto], images: Sequence[np.ndarray]) -> list[float]:
    """Median time of a frame for each graph, measured in turn on the same frames.

    Rounds are repeated until ``_TIMED_S`` have passed, ``_ROUNDS`` at most: one says enough of a
    network that takes seconds. A turn begins with calls that are not counted, as the threads of the
    graph before keep spinning for a while.
    """
    sessions = [GraphSession(graph) for graph in graphs]
    found_ms: list[list[float]] = [[] for _ in sessions]
    enough_s = time.perf_counter() + _TIMED_S
    for _ in range(_ROUNDS):
        for session, times_ms in zip(sessions, found_ms, strict=True):
            for image in images[:_UNCOUNTED]:
                session(image)
            for image in images[:_TIMED_FRAMES]:
                began_s = time.perf_counter()
                session(image)
                times_ms.append(1e3 * (time.perf_counter() - began_s))
        if time.perf_counter() > enough_s:
            break
    return [statistics.median(times_ms) for times_ms in found_ms]


def float_tensors(graph: onnx.ModelProto) -> list[str]:
    """Names of all floating-point results inside a graph, in the order in which they come about.

    Raises:
        ExportError: the shapes and types of the graph cannot be inferred.
    """
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
    types = _tensor_types(graph)
    made = [name for node in graph.graph.node for name in node.output]
    return [name for name in made if name in types and types[name].elem_type in floats]


def _tensor_types(graph: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    """Type and shape of what is inside a graph."""
    try:
        inferred = onnx.shape_inference.infer_shapes(graph, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        raise ExportError(f"the graph's types cannot be inferred: {error}") from None
    known = [*inferred.graph.value_info, *inferred.graph.output]
    return {info.name: info.type.tensor_type for info in known}


def look_inside(
    graph: onnx.ModelProto, images: Sequence[np.ndarray], tensors: Sequence[str]
) -> Iterator[Mapping[str, np.ndarray]]:
    """What the named tensors hold for each image; a tensor comes once an image, in any order.

    Raises:
        ExportError: the shapes and types of the graph cannot be inferred.
    """
    for some in _passes(graph, tensors):
        opened = onnx.ModelProto()
        opened.CopyFrom(graph)
        del opened.graph.output[:]
        opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in some)
        session = GraphSession(opened)
        for image in images:
            yield session.whole(image)


def _passes(graph: onnx.ModelProto, tensors: Sequence[str]) -> list[list[str]]:
    """The tensors in as many lists as it takes for each to fit in ``_BYTES_A_PASS``."""
    types, free = _tensor_types(graph), 0
    passes: list[list[str]] = []
    for name in tensors:
        dims = types[name].shape.dim if name in types else ()
        size = 4 * math.prod(dim.dim_value or 1 for dim in dims)
        if not passes or size > free:
            passes.append([])
            free = _BYTES_A_PASS
        passes[-1].append(name)
        free -= size
    return passes


def largest_values(
    graph: onnx.ModelProto, images: Sequence[np.ndarray], tensors: Sequence[str]
) -> dict[str, float]:
    """The largest absolute value that each tensor takes on the images; NaN and Inf count as Inf."""
    largest = dict.fromkeys(tensors, 0.0)
    for values in look_inside(graph, images, tensors):
        for name, value in values.items():
            peak = float(np.abs(value).max()) if value.size else 0.0
            largest[name] = max(largest[name], peak if np.isfinite(peak) else float("inf"))
    return largest
