"""From a torch model to a graph in the requested precision that passes the gate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import onnx
import torch
from torch import Tensor, nn

from export.errors import ExportError, ParityError
from export.gate.parity import require
from export.gate.reference import Reference
from export.gate.report import ParityReport
from export.graph.blocked_prelu import with_blocked_prelu
from export.graph.deploy import DeployModel
from export.graph.ort_session import GraphSession, median_ms
from export.graph.simplify import simplified
from export.graph.to_onnx import export_graph
from export.precision.half import HalfPrecision, to_half
from export.precision.half_graph import emulate_half
from export.precision.int8 import Quantised, to_int8
from export.precision.qat import quantisation_aware_finetuning
from export.request import ExportRequest
from sfda_edge.models.inference import main_output
from sfda_edge.runs.progress import progress_bar

logger = logging.getLogger(__name__)
_PROBED = 8  # images that show how large values become
ADVICE = (
    "Nothing was written: take a higher precision, or change a threshold (--set KEY=VALUE; "
    "sfda-edge recipes export lists them)"
)


def single_precision(request: ExportRequest, deploy: DeployModel) -> onnx.ModelProto:
    """The graph of a model, simplified; as a bundle has it where fp32 was asked for.

    Raises:
        ExportError: torch cannot export it.
    """
    height, width = request.spec.input_hw
    # torch.export takes a first axis of 1 for a constant.
    count = 2 if request.dynamic_batch else 1
    example = torch.zeros((count, height, width, 3), dtype=torch.uint8)
    graph = export_graph(
        deploy,
        example,
        output_names=deploy.outputs.names,
        profile=request.profile,
        dynamic_batch=request.dynamic_batch,
    )
    graph = simplified(graph)
    return as_fp32(graph, request) if request.precision == "fp32" else graph


def as_fp32(graph: onnx.ModelProto, request: ExportRequest) -> onnx.ModelProto:
    """A graph in single precision as its bundle has it: of a CPU, PReLU in other operators."""
    return with_blocked_prelu(graph) if request.profile.engine is None else graph


def with_full_labels(request: ExportRequest) -> onnx.ModelProto:
    """The graph that takes labels at full size, whatever was asked for."""
    outputs = replace(request.outputs, argmax="full")
    return single_precision(request, DeployModel(request.model, request.spec, outputs).eval())


def half_precision(graph: onnx.ModelProto, reference: Reference) -> HalfPrecision:
    """The half-precision graph that passes the gate.

    Raises:
        ParityError: none does; says which layer breaks it.
    """

    def rounded(single: Sequence[str]) -> ParityReport:
        return reference.compare(GraphSession(emulate_half(graph, single)))

    def quickly(single: Sequence[str]) -> ParityReport:
        return reference.quick_report(GraphSession(emulate_half(graph, single)))

    half = to_half(
        graph,
        reference.request.images[:_PROBED],
        compare=rounded,
        quick_compare=quickly,
        progress=progress_bar("fp16 search"),
    )
    try:
        require(half.parity, "the fp16 graph, with every value rounded to half precision,")
    except ParityError as error:
        compare = lambda some: reference.compare(GraphSession(some))
        worst = half.first_failing(compare, rounded=True)
        raise ParityError(f"{error}; the first layer to fail it is {worst}. {ADVICE}") from None
    return half


def eight_bits(graph: onnx.ModelProto, reference: Reference) -> Quantised:
    """The int8 graph that passes the gate, of a fine-tuned network where it has to be.

    Raises:
        ParityError: none does; says which layer breaks it.
        ExportError: the frames are too few to calibrate on, or noise; or it is slower than fp32.
    """
    fast = partial(_require_fast, graph=graph, request=reference.request)
    int8, steps = _quantised(graph, reference, fast), reference.request.thresholds.qat_steps
    if steps and not (report := _scored(int8, reference)).passed:
        loss = "; ".join(report.failures())
        logger.info("int8 fails the gate (%s): fine-tuning for %d steps", loss, steps)
        tuned = _quantised(_finetuned(reference, steps), reference)
        if _scored(tuned, reference).rank_key > report.rank_key:
            int8 = replace(tuned, qat_steps=steps)
    try:
        require(int8.parity, "the int8 graph")
    except ParityError as error:
        worst = int8.first_failing(lambda some: reference.compare(GraphSession(some)))
        raise ParityError(f"{error}; the first layer to fail it is {worst}. {ADVICE}") from None
    return int8


def _require_fast(int8: onnx.ModelProto, graph: onnx.ModelProto, *, request: ExportRequest) -> None:
    """A CPU that does not run int8 faster has no use for what it loses.

    Everything is in int8 here, before the search returns nodes to float. Two measurements must say
    that it is slower: one of a busy machine says little.

    Raises:
        ExportError: a frame takes longer than ``int8_time_ratio`` allows.
    """
    most = request.thresholds.int8_time_ratio
    if request.profile.engine is not None or most == 0:
        return
    for _ in range(2):
        int8_ms, fp32_ms = median_ms((int8, as_fp32(graph, request)), request.images)
        if int8_ms <= most * fp32_ms:
            return
    raise ExportError(
        f"int8 is slower than fp32 on this CPU: a frame takes {int8_ms:.1f} ms instead of "
        f"{fp32_ms:.1f} ms, {int8_ms / fp32_ms:.2f} x where {most:g} x is allowed. Nothing was "
        "written: leave out --int8, or export for another machine with --set int8_time_ratio=0"
    )


def _quantised(
    graph: onnx.ModelProto,
    reference: Reference,
    before_search: Callable[[onnx.ModelProto], None] = lambda _: None,
) -> Quantised:
    request = reference.request
    return to_int8(
        graph,
        request.calibration,
        compare=lambda some: reference.compare(GraphSession(some)),
        quick_compare=lambda some: reference.quick_report(GraphSession(some)),
        int32_bias=request.profile.engine is None,
        before_search=before_search,
        progress=progress_bar("int8 search"),
    )


def _scored(int8: Quantised, reference: Reference) -> ParityReport:
    """Its report, with mIoU where there are labels: these decide whether to fine-tune."""
    return reference.scored(int8.parity, GraphSession(int8.graph))


def _finetuned(reference: Reference, steps: int) -> onnx.ModelProto:
    """The graph, in single precision, of a network that was fine-tuned for int8."""
    request = reference.request

    def logits(network: nn.Module, frames: Tensor) -> Tensor:
        inputs = reference.deploy.normalise(frames.float().permute(0, 3, 1, 2))
        return main_output(network(inputs))

    bar = progress_bar("fine-tune", steps)
    network = quantisation_aware_finetuning(
        request.model, request.calibration, logits, steps=steps, progress=bar
    )
    return single_precision(request, DeployModel(network, request.spec, request.outputs).eval())
