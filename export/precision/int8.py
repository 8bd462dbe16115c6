"""int8 in the graph: Q/DQ pairs around the nodes in int8, calibrated on target frames."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx

from export.errors import ExportError
from export.gate.parity import ParityReport
from export.graph.ort_session import float_tensors, median_ms
from export.graph.to_onnx import check_graph
from export.precision.calibration import RULES, Limits, calibrate, require_frames
from export.precision.half import to_fp16
from export.precision.node_search import Compare, first_failing, nodes_to_keep
from sfda_edge.runs.progress import Progress, silent

# What int8 kernels exist for, on CPUs and in TensorRT.
_KINDS = ["Add", "AveragePool", "Concat", "Conv", "ConvTranspose", "Gemm", "MaxPool", "Resize"]

# Of these, none with a constant: int8 gains nothing there, and TensorRT refuses a scalar in it.
_JOINING = {"Add", "Concat"}
_CUTTING = {"Clip", "Relu"}
_MULTIPLYING = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


@dataclass(frozen=True, eq=False, kw_only=True)
class Quantised:
    """What the search found.

    Attributes:
        graph: with Q/DQ pairs.
        source: the graph in single precision that it was made from.
        rule: of calibration, the best of ``tried``.
        tried: label agreement of every rule with everything quantised.
        limits: of that rule.
        int32_bias: as ``quantised_graph``.
        kept: names of nodes that stay in floating point, of those that could be quantised.
        quantised: names of the others.
        single: names of all nodes that multiply and are not quantised.
        parity: of the graph.
        qat_steps: of quantisation-aware fine-tuning.
    """

    graph: onnx.ModelProto
    source: onnx.ModelProto
    rule: str
    tried: dict[str, float]
    limits: Limits
    int32_bias: bool
    kept: tuple[str, ...]
    quantised: tuple[str, ...]
    single: tuple[str, ...]
    parity: ParityReport
    qat_steps: int = 0

    def first_failing(self, compare: Compare) -> str | None:
        """The node with which quantising from front to back first fails the gate."""

        def compare_quantised(some: Sequence[str]) -> ParityReport:
            rest = [name for name in self.quantised if name not in set(some)]
            kept = [*self.kept, *rest]
            return compare(quantised_graph(self.source, self.limits, kept, self.int32_bias))

        return first_failing(self.quantised, compare_quantised)


@dataclass(frozen=True, kw_only=True)
class Int8Facts:
    """What an int8 graph is like, for manifest, card and people.

    Attributes:
        rule: of calibration.
        tried: label agreement of every rule, with everything quantised.
        kept: names of nodes that stay in floating point.
        num_quantised: nodes in int8.
        int8_ms, fp16_ms, fp32_ms: median time of a frame in ONNX Runtime here, interleaved;
            fp16 with every node in half, None where the graph cannot be in half.
        qat_steps: of quantisation-aware fine-tuning; 0 if it was not needed.
    """

    rule: str
    tried: dict[str, float]
    kept: tuple[str, ...]
    num_quantised: int
    int8_ms: float
    fp16_ms: float | None
    fp32_ms: float
    qat_steps: int

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        tried = ", ".join(f"{rule} {100 * value:.1f} %" for rule, value in self.tried.items())
        tuned = f", after {self.qat_steps} steps of fine-tuning" if self.qat_steps else ""
        return [
            f"calibration: {self.rule} (everything in int8: {tried})",
            f"{self.num_quantised} nodes in int8, {len(self.kept)} kept in float{tuned}",
            f"ONNX Runtime on this CPU: {timing_text(self.record())}",
        ]


def timing_text(facts: dict[str, Any]) -> str:
    """The times of a record of ``Int8Facts``, and whether int8 is faster, for people."""
    times_ms = {name: facts[f"{name}_ms"] for name in ("int8", "fp16", "fp32")}
    times_ms = {name: ms for name, ms in times_ms.items() if ms is not None}
    faster = [name for name, ms in times_ms.items() if ms < times_ms["int8"]]
    verdict = f"slower than {' and '.join(faster)}" if faster else "the fastest"
    listed = ", ".join(f"{ms:.1f} ms in {name}" for name, ms in times_ms.items())
    return f"a frame takes {listed}: int8 is {verdict}"


def int8_facts(found: Quantised, images: Sequence[np.ndarray]) -> Int8Facts:
    """Facts of a search's result; times it against what it came from, and that in half."""
    graphs = [found.graph, found.source]
    with contextlib.suppress(ExportError):  # some graphs have no half: those with control flow
        graphs.append(to_fp16(found.source))
    int8_ms, fp32_ms, *fp16_ms = median_ms(graphs, images)
    return Int8Facts(
        rule=found.rule,
        tried={rule: round(value, 6) for rule, value in found.tried.items()},
        kept=found.kept,
        num_quantised=len(found.quantised),
        int8_ms=round(int8_ms, 3),
        fp16_ms=round(fp16_ms[0], 3) if fp16_ms else None,
        fp32_ms=round(fp32_ms, 3),
        qat_steps=found.qat_steps,
    )


def to_int8(
    graph: onnx.ModelProto,
    calibration: Sequence[np.ndarray],
    *,
    compare: Compare,
    quick_compare: Compare,
    int32_bias: bool = True,
    progress: Progress = silent,
) -> Quantised:
    """Calibrate by every rule, take the best, and keep nodes that lose accuracy in float.

    Args:
        graph: in single precision.
        calibration: target frames, (H, W, 3) uint8.
        compare: compares a graph.
        quick_compare: the same on few images.
        int32_bias: as ``quantised_graph``.
        progress: wraps the search's ranking.

    Returns:
        the best that was found; its parity may have failed.

    Raises:
        ExportError: too few frames, or noise.
    """
    require_frames(calibration)
    quantisable = quantisable_nodes(graph)
    around = {name for node in quantisable for name in (*node.input, *node.output)}
    # What an activation cuts off is known by its answer.
    around |= {
        name for node in graph.graph.node if node.op_type in _CUTTING for name in node.output
    }
    tensors = [name for name in float_tensors(graph) if name in around]
    limits = {
        rule: through_activations(graph, found)
        for rule, found in calibrate(graph, calibration, tensors).items()
    }
    order = [node.name for node in quantisable]

    def made(rule: str, kept: Sequence[str]) -> onnx.ModelProto:
        return quantised_graph(graph, limits[rule], kept, int32_bias)

    reports = {rule: compare(made(rule, ())) for rule in RULES}
    best = max(RULES, key=lambda rule: reports[rule].rank_key)
    kept, report = nodes_to_keep(
        order,
        (),
        compare=lambda some: compare(made(best, some)),
        quick_compare=lambda some: quick_compare(made(best, some)),
        progress=progress,
    )
    quantised = tuple(name for name in order if name not in set(kept))
    multiplying = [node.name for node in graph.graph.node if node.op_type in _MULTIPLYING]
    return Quantised(
        graph=made(best, kept),
        source=graph,
        rule=best,
        tried={rule: one.label_agreement for rule, one in reports.items()},
        limits=limits[best],
        int32_bias=int32_bias,
        kept=kept,
        quantised=quantised,
        single=tuple(name for name in multiplying if name not in set(quantised)),
        parity=report,
    )


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
        if name not in answered and reading and all(n.op_type in _CUTTING for n in reading):
            tightened[name] = min(limit, max(limits[node.output[0]] for node in reading))
    return tightened


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """ONNX Runtime's quantiser tells the root logger of every channel."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


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
