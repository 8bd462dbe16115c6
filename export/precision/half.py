"""Half precision in the graph: which nodes compute in it, and how they are found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from export.errors import ExportError
from export.gate.report import ParityReport
from export.graph.ort_session import GraphSession, float_tensors, largest_values
from export.precision.half_graph import emulate_half, to_fp16
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
# ONNX Runtime's errors of a node without a kernel, when it loads or when it runs a graph.
_NO_KERNEL = re.compile(r"(?:node with name|node\. Name:) ?'([^']+)'")
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
    single = runnable_in_half(graph, single, images[0])
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


def runnable_in_half(graph: onnx.ModelProto, single: set[str], image: np.ndarray) -> set[str]:
    """``single`` and the nodes that ONNX Runtime cannot run in half precision.

    Args:
        graph: in single precision.
        single: nodes that stay in single precision.
        image: (H, W, 3) uint8.

    Raises:
        ExportError: it does not run the graph for another reason.
    """
    while True:
        try:
            GraphSession(to_fp16(graph, single))(image)
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
