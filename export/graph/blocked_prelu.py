"""PReLU in operators that ONNX Runtime's CPU kernels run in their blocked layout.

It has no blocked kernel for PReLU, changes the layout before and after each, and its PReLU is slow
itself: of ESPNetv2 that was a third of the time. The same function of other operators,

    PReLU(x) = x + (1 − a) · ReLU(−x),

is exact where x is positive. The two scalings are written as BatchNormalization, of which ONNX
Runtime makes blocked convolutions that take in the ReLU and the sum; OpenVINO, which has a good
PReLU, joins them into one kernel, too. TensorRT fuses PReLU itself: profiles with engines keep it.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper


def with_blocked_prelu(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph without the PReLUs that have a constant slope for each channel."""
    found = onnx.ModelProto()
    found.CopyFrom(graph)
    constants = {tensor.name: tensor for tensor in found.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.graph.node:
        slope = _slope(node, constants)
        nodes += [node] if slope is None else _written_out(found.graph, node, slope)
    del found.graph.node[:]
    found.graph.node.extend(nodes)
    _drop_unused(found.graph)
    return found


def _slope(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> np.ndarray | None:
    """The slope of each channel, (C,); None of other nodes, and where one slope serves all."""
    if node.op_type != "PRelu" or node.input[1] not in constants:
        return None
    slope = numpy_helper.to_array(constants[node.input[1]])
    per_channel = slope.ndim >= 1 and slope.size > 1 and slope.shape[-2:] == (1, 1)
    return slope.ravel() if per_channel and slope.dtype == np.float32 else None


def _written_out(
    graph: onnx.GraphProto, node: onnx.NodeProto, slope: np.ndarray
) -> list[onnx.NodeProto]:
    """The nodes in its place; the last keeps its name, by which its layer is found."""
    stem, x = node.name or node.output[0], node.input[0]
    negative, positive, scaled = (f"{stem}.{part}" for part in ("negative", "relu", "scaled"))
    return [
        _scaling(graph, x, negative, -np.ones_like(slope)),
        helper.make_node("Relu", [negative], [positive], name=positive),
        _scaling(graph, positive, scaled, 1 - slope),
        helper.make_node("Add", [scaled, x], list(node.output), name=node.name),
    ]


def _scaling(graph: onnx.GraphProto, x: str, output: str, factor: np.ndarray) -> onnx.NodeProto:
    """Each channel times its factor, as a BatchNormalization."""
    names = [f"{output}.{part}" for part in ("factor", "zero", "one")]
    values = factor, np.zeros_like(factor), np.ones_like(factor)
    for name, value in zip(names, values, strict=True):
        graph.initializer.append(numpy_helper.from_array(value, name))
    factor_name, zero, one = names
    inputs = [x, factor_name, zero, zero, one]
    return helper.make_node("BatchNormalization", inputs, [output], name=output, epsilon=0.0)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the slopes that nothing reads any more; ONNX Runtime warns of each."""
    read = _names_read(graph)
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _names_read(graph: onnx.GraphProto) -> set[str]:
    """What nodes read, those of inner graphs included, and what the graph returns."""
    read = {output.name for output in graph.output}
    for node in graph.node:
        read.update(node.input)
        for attribute in node.attribute:  # of If and Loop
            only = [attribute.g] if attribute.HasField("g") else []
            for inner in (*only, *attribute.graphs):
                read |= _names_read(inner)
    return read
