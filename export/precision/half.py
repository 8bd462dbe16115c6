"""Half precision in the graph: which nodes compute in it, and how they are found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.errors import ExportError
from export.gate.parity import ParityReport
from export.graph.ort_session import GraphSession, float_tensors, largest_values
from export.graph.to_onnx import check_graph
from export.precision.node_search import Compare, CompareNodes, first_failing, nodes_to_keep
from sfda_edge.runs.progress import Progress, silent

HALF_MAX, HALF_LEAST = 65504.0, 2.0**-14  # the largest and the least normal number
# Frames to come may be brighter than these: what comes nearer to the largest half stays single.
_HEADROOM = 4.0
_PROBED = 2  # images that show whether a value is finite
# Sums over many values and exponentials: the field's experience on real devices, where a half sum
# is also accumulated in half (NVIDIA/TensorRT#2564, #4111, #1262; mit-han-lab/efficientvit#116).
_SINGLE_KINDS = {
    "Exp",
    "GlobalAveragePool",
    "InstanceNormalization",
    "LayerNormalization",
    "Log",
    "LogSoftmax",
    "Pow",
    "ReduceL2",
    "ReduceMean",
    "ReduceSum",
    "Softmax",
}
# ONNX Runtime's error of a node without a kernel.
_NO_KERNEL = re.compile(r"implementation for .* node with name '([^']+)'")
_POINTWISE = {"Add", "Cast", "Div", "Gather", "Mul", "Slice", "Sub", "Transpose"}


@dataclass(frozen=True, eq=False)
class HalfPrecision:
    """What the search found.

    Attributes:
        graph: computes in half precision but for ``single``.
        source: the graph in single precision that it was made from.
        single: names of the nodes that stay in single precision.
        parity: of the graph, with every half result really rounded.
    """

    graph: onnx.ModelProto
    source: onnx.ModelProto
    single: tuple[str, ...]
    parity: ParityReport

    def first_failing(self, compare: Compare, *, rounded: bool = False) -> str | None:
        """The node with which halving from front to back first fails; ``rounded`` as on a GPU."""
        every = [node.name for node in self.source.graph.node]
        halved = [name for name in every if name not in set(self.single)]
        convert = emulate_half if rounded else to_fp16

        def compare_halved(some: Sequence[str]) -> ParityReport:
            chosen = set(some)
            return compare(convert(self.source, [name for name in every if name not in chosen]))

        return first_failing(halved, compare_halved)


def to_half(
    graph: onnx.ModelProto,
    images: Sequence[np.ndarray],
    *,
    compare: CompareNodes,
    quick_compare: CompareNodes,
    progress: Progress = silent,
) -> HalfPrecision:
    """Find which nodes must stay in single precision, and convert the others.

    Nodes that are known to suffer and those whose values come near the largest half stay single
    from the start; when the gate still fails, ``nodes_to_keep`` finds more.

    Args:
        graph: in single precision.
        images: target frames, (H, W, 3) uint8.
        compare: compares the graph, rounded, in which these nodes stay single.
        quick_compare: the same on few images.
        progress: wraps the search's ranking.

    Returns:
        the best that was found; its parity may have failed.

    Raises:
        ExportError: the converted graph is not valid ONNX.
    """
    order = [node.name for node in graph.graph.node]
    single = finite_in_half(graph, images[:_PROBED], sensitive_nodes(graph, images))
    single = runnable_in_half(graph, single)
    kept, report = nodes_to_keep(
        order, single, compare=compare, quick_compare=quick_compare, progress=progress
    )
    return HalfPrecision(to_fp16(graph, kept), graph, kept, report)


def sensitive_nodes(graph: onnx.ModelProto, images: Sequence[np.ndarray]) -> set[str]:
    """Nodes that stay in single precision whatever the gate says.

    Args:
        graph: in single precision, every node with a name.
        images: target frames.

    Returns:
        names: the normalisation of the input, ``_SINGLE_KINDS``, and what may overflow.
    """
    tensors = float_tensors(graph)
    largest = largest_values(graph, images, tensors)
    constants = [t for t in graph.graph.initializer if t.data_type == TensorProto.FLOAT]
    values = {t.name: np.abs(numpy_helper.to_array(t)) for t in constants}
    unfit = {name for name, value in values.items() if _unfit(value)}
    unfit |= {name for name, peak in largest.items() if peak * _HEADROOM > HALF_MAX}
    found = set(_normalisation(graph))
    for node in graph.graph.node:
        if node.op_type in _SINGLE_KINDS or unfit & {*node.input, *node.output}:
            found.add(node.name)
    return found


def finite_in_half(
    graph: onnx.ModelProto, images: Sequence[np.ndarray], single: set[str]
) -> set[str]:
    """``single`` and what else it takes for no value to become NaN or infinite in half.

    Label maps do not show such values, and the peaks in single precision do not either: a quotient
    of two numbers that half precision rounds to 0 is none.

    Args:
        graph: in single precision.
        images: target frames.
        single: nodes that stay in single precision.

    Raises:
        ExportError: values are not finite whatever stays in single precision.
    """
    tensors = float_tensors(graph)
    exact = largest_values(graph, images, tensors)
    finite = [name for name in tensors if np.isfinite(exact[name])]
    makers = {name: node for node in graph.graph.node for name in node.output}
    while True:
        found = largest_values(emulate_half(graph, single), images, finite)
        broken = next((name for name in finite if not np.isfinite(found[name])), None)
        if broken is None:
            return single
        wanted = _nearest_halved(makers[broken], makers, single)
        if not wanted:
            raise ExportError(f"{makers[broken].name} is not finite, whatever stays single")
        single = single | wanted


def runnable_in_half(graph: onnx.ModelProto, single: set[str]) -> set[str]:
    """``single`` and the nodes for which ONNX Runtime has no kernel in half precision.

    Raises:
        ExportError: it does not take the graph for another reason.
    """
    while True:
        try:
            GraphSession(to_fp16(graph, single))
        except ExportError as error:
            found = _NO_KERNEL.search(str(error))
            if found is None or found[1] in single:
                raise
            single = single | {found[1]}
        else:
            return single


def _nearest_halved(
    node: onnx.NodeProto, makers: dict[str, onnx.NodeProto], single: set[str]
) -> set[str]:
    """The nearest nodes before this one, itself among them, that are not single yet."""
    reached = near = {node.name: node}
    while near and not reached.keys() - single:
        read = (makers[name] for one in near.values() for name in one.input if name in makers)
        near = {one.name: one for one in read if one.name not in reached}
        reached = {**reached, **near}
    return set(reached.keys() - single)


def _unfit(constant: np.ndarray) -> bool:
    """Too large for half precision, or a single number that it would turn into 0."""
    if not constant.size:
        return False
    vanishes = constant.size == 1 and 0 < float(constant.max()) < HALF_LEAST
    return vanishes or float(constant.max()) > HALF_MAX


def _normalisation(graph: onnx.ModelProto) -> list[str]:
    """The pointwise nodes between the input and the first that is not: 255 levels need them."""
    reached = {graph.graph.input[0].name}
    names = []
    for node in graph.graph.node:
        if node.op_type in _POINTWISE and reached & set(node.input):
            reached |= set(node.output)
            names.append(node.name)
    return names


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
# Inputs that the operator wants in single precision whatever the others are.
_SINGLE_INPUTS = {"Resize": (1, 2)}


def _half_constant(constant: TensorProto, name: str, emulate: bool) -> TensorProto:
    with np.errstate(over="ignore"):
        values = numpy_helper.to_array(constant).astype(np.float16)
    return numpy_helper.from_array(values.astype(np.float32) if emulate else values, name)
