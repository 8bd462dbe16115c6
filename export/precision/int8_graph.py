"""Q/DQ pairs around the nodes of a graph that compute in int8."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator

import numpy as np
import onnx

from export.graph.to_onnx import check_graph
from export.precision.calibration import Limits

# What int8 kernels exist for, on CPUs and in TensorRT.
_KINDS = ["Add", "AveragePool", "Concat", "Conv", "ConvTranspose", "Gemm", "MaxPool", "Resize"]
# Of these, none with a constant: int8 gains nothing there, and TensorRT refuses a scalar in it.
_JOINING = {"Add", "Concat"}
CUTTING = {"Clip", "Relu"}


def quantisable_nodes(graph: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that int8 kernels exist for, and are worth it.

    Only what the first answer, the label map, comes from: the statistics beside it would share one
    scale, whatever their units, and cost nothing as they are.
    """
    constants = {tensor.name for tensor in graph.graph.initializer}
    constants |= {n.output[0] for n in graph.graph.node if n.op_type == "Constant"}
    leading = _leading_to(graph, graph.graph.output[0].name)
    return [
        node
        for node in graph.graph.node
        if leading.intersection(node.output)
        and node.op_type in _KINDS
        and not (node.op_type in _JOINING and constants.intersection(node.input))
    ]


def _leading_to(graph: onnx.ModelProto, output: str) -> set[str]:
    """Names of all that an answer is computed from."""
    leading = {output}
    for node in reversed(graph.graph.node):
        if leading.intersection(node.output):
            leading.update(node.input)
    return leading


def through_activations(graph: onnx.ModelProto, limits: Limits) -> Limits:
    """Limits in which a value that goes into ReLU or Clip alone reaches no further than its answer.

    The pair of Q and DQ stands before the activation. Without this, levels of a MobileNet would be
    spread over 145, of which ReLU6 leaves 6: half of all labels change.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    answered = {output.name for output in graph.graph.output}
    tightened = dict(limits)
    for name, limit in limits.items():
        reading = readers.get(name, [])
        if name not in answered and reading and all(n.op_type in CUTTING for n in reading):
            tightened[name] = min(limit, max(limits[node.output[0]] for node in reading))
    return tightened


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """ONNX Runtime's quantiser tells the root logger of every channel."""
    disabled = logging.root.manager.disable
    logging.disable(max(disabled, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(disabled)


def quantised_graph(
    graph: onnx.ModelProto, limits: Limits, kept: Iterable[str], int32_bias: bool = True
) -> onnx.ModelProto:
    """Q/DQ pairs around ``quantisable_nodes`` but those ``kept``.

    Biases in int32 are what ONNX Runtime's int8 kernels take and TensorRT refuses; otherwise they
    stay in floating point.

    Symmetric levels and one scale a channel of weights: what TensorRT demands, and ONNX Runtime
    takes.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    ranges = {
        name: TensorData(lowest=np.float32(-limit), highest=np.float32(limit))
        for name, limit in limits.items()
    }
    wanted = {node.name for node in quantisable_nodes(graph)} - set(kept)
    inferred = onnx.shape_inference.infer_shapes(graph)
    quantizer = QDQQuantizer(
        inferred,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[],
        nodes_to_exclude=[n.name for n in graph.graph.node if n.name not in wanted],
        op_types_to_quantize=_KINDS,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": int32_bias,
        },
    )
    with _silent():
        quantizer.quantize_model()
    quantizer.model.topological_sort()  # it leaves the new nodes at the end
    made: onnx.ModelProto = quantizer.model.model
    made.ir_version = graph.ir_version
    check_graph(made, "the int8 graph")
    return made
