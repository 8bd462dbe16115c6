"""Convert a graph to half precision, or emulate it in single precision."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.errors import ExportError
from export.graph.ort_session import float_tensors
from export.graph.to_onnx import check_graph


def to_fp16(graph: onnx.ModelProto, single: Iterable[str] = ()) -> onnx.ModelProto:
    """A copy that computes in fp16 but for the nodes ``single``; its inputs and outputs stay.

    Written here because the converters at hand break: onnxconverter-common's on Resize and Cast
    (microsoft/onnxconverter-common#208, #272, #320), ONNX Runtime's on the order of nodes when some
    stay in single precision.

    Raises:
        ExportError: the graph has control flow, or the result is not valid ONNX.
    """
    converted = _Halver(graph, single, emulate=False).converted()
    check_graph(converted, "the fp16 graph")
    return converted


def emulate_half(graph: onnx.ModelProto, single: Iterable[str] = ()) -> onnx.ModelProto:
    """``to_fp16`` in single precision, with every half value really rounded.

    ONNX Runtime has no half kernels for most operators on a CPU: it computes an fp16 graph in
    single precision and drops the rounding in between (300 · 300 is 90000 there, where half
    precision has no such number). Here every value passes through half explicitly; sums inside an
    operator are single, as on tensor cores.
    """
    return _Halver(graph, single, emulate=True).converted()


class _Halver:
    """Rewrites a graph node by node; every value exists in single, in half, or in both."""

    def __init__(self, graph: onnx.ModelProto, single: Iterable[str], emulate: bool) -> None:
        if any(a.g.node or a.graphs for node in graph.graph.node for a in node.attribute):
            raise ExportError("half precision of a graph with control flow (If, Loop) is not built")
        self._source, self._kept, self._emulate = graph, set(single), emulate
        inputs = {
            value.name
            for value in graph.graph.input
            if value.type.tensor_type.elem_type == TensorProto.FLOAT
        }
        self._floats = inputs | set(float_tensors(graph))
        self._constants = {
            t.name: t for t in graph.graph.initializer if t.data_type == TensorProto.FLOAT
        }
        self._in_half: dict[str, str] = {}  # value → the name of its half version
        self._only_half: set[str] = set()  # made by half nodes, and not read in single so far
        self._graph = onnx.ModelProto()
        self._graph.CopyFrom(graph)
        del self._graph.graph.node[:], self._graph.graph.value_info[:]

    def converted(self) -> onnx.ModelProto:
        for node in self._source.graph.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            if node.name in self._kept or node.op_type in _TYPED:
                self._keep(copy)
            else:
                self._halve(copy)
        for output in self._source.graph.output:
            self._single(output.name)
        self._drop_unread()
        return self._graph

    def _keep(self, node: onnx.NodeProto) -> None:
        for index, name in enumerate(node.input):
            node.input[index] = self._single(name)
        self._graph.graph.node.append(node)

    def _halve(self, node: onnx.NodeProto) -> None:
        always_single = _SINGLE_INPUTS.get(node.op_type, ())
        for index, name in enumerate(node.input):
            if index in always_single:
                node.input[index] = self._single(name)
            elif name in self._constants or name in self._floats:
                node.input[index] = self._half(name)
        self._graph.graph.node.append(node)
        appended = self._graph.graph.node[-1]  # protobuf has copied it
        for index, name in enumerate(node.output):
            if name in self._floats:
                self._made_in_half(appended, index, name)

    def _made_in_half(self, node: onnx.NodeProto, index: int, name: str) -> None:
        if self._emulate:
            node.output[index] = f"{name}_exact"
            self._cast(f"{name}_exact", f"{name}_rounded", TensorProto.FLOAT16)
            self._cast(f"{name}_rounded", name, TensorProto.FLOAT)
            self._in_half[name] = name
        else:
            node.output[index] = self._in_half[name] = f"{name}_half"
            self._only_half.add(name)

    def _half(self, name: str) -> str:
        """The name of a value's half version, made when it is first asked for."""
        if name in self._in_half:
            return self._in_half[name]
        self._in_half[name] = half = f"{name}_half"
        if name in self._constants:
            constant = _half_constant(self._constants[name], half, self._emulate)
            self._graph.graph.initializer.append(constant)
        elif self._emulate:
            self._cast(name, f"{name}_rounded", TensorProto.FLOAT16)
            self._cast(f"{name}_rounded", half, TensorProto.FLOAT)
        else:
            self._cast(name, half, TensorProto.FLOAT16)
        return half

    def _single(self, name: str) -> str:
        """The name of a value's single version, which every value but those of half nodes has."""
        if name in self._only_half:
            self._only_half.remove(name)
            self._cast(self._in_half[name], name, TensorProto.FLOAT)
        return name

    def _cast(self, value: str, result: str, to: int) -> None:
        self._graph.graph.node.append(
            helper.make_node("Cast", [value], [result], name=f"{result}_cast", to=to)
        )

    def _drop_unread(self) -> None:
        """Constants of which only the half version is read."""
        read = {name for node in self._graph.graph.node for name in node.input}
        kept = [t for t in self._graph.graph.initializer if t.name in read]
        del self._graph.graph.initializer[:]
        self._graph.graph.initializer.extend(kept)


# Their results have the type that an attribute says, whatever goes in.
_TYPED = {"Cast", "CastLike", "Constant", "ConstantOfShape", "EyeLike", "RandomNormal"}
# Inputs that the operator needs in single precision whatever the others are.
_SINGLE_INPUTS = {"Resize": (1, 2)}


def _half_constant(constant: TensorProto, name: str, emulate: bool) -> TensorProto:
    with np.errstate(over="ignore"):
        values = numpy_helper.to_array(constant).astype(np.float16)
    return numpy_helper.from_array(values.astype(np.float32) if emulate else values, name)
