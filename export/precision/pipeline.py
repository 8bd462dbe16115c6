"""torch model → graph, in the precision that was asked for, as far as the gate lets it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import onnx
import torch
from torch import Tensor, nn

from export.errors import ParityError
from export.gate.parity import ParityReport, require
from export.gate.reference import Reference
from export.graph.deploy import DeployModel
from export.graph.ort_session import GraphSession
from export.graph.simplify import simplified
from export.graph.to_onnx import export_graph
from export.precision.half import HalfPrecision, emulate_half, to_half
from export.precision.int8 import Quantised, to_int8
from export.precision.qat import finetune
from export.request import ExportRequest
from sfda_edge.runs.progress import progress_bar

logger = logging.getLogger(__name__)
_PROBED = 8  # images that show how large values become
ADVICE = (
    "Nothing was written: take a higher precision, or accept less with a threshold of the recipe "
    "(--set KEY=VALUE; sfda-edge recipes export lists them)"
)


def single_precision(request: ExportRequest, deploy: DeployModel) -> onnx.ModelProto:
    """The graph of a model, simplified.

    Raises:
        ExportError: torch cannot export it.
    """
    height, width = request.spec.input_hw
    # torch.export takes a first axis of 1 for a constant.
    count = 2 if request.dynamic_batch else 1
    example = torch.zeros((count, height, width, 3), dtype=torch.uint8)
    names = deploy.answers.names
    return simplified(export_graph(deploy, example, names, request.profile, request.dynamic_batch))


def with_full_labels(request: ExportRequest) -> onnx.ModelProto:
    """The graph that takes labels at full size, whatever was asked for."""
    answers = replace(request.answers, argmax="full")
    return single_precision(request, DeployModel(request.model, request.spec, answers).eval())


def half_precision(graph: onnx.ModelProto, reference: Reference) -> HalfPrecision:
    """The half-precision graph that passes the gate.

    Raises:
        ParityError: none does; says which layer breaks it.
    """

    def rounded(single: Sequence[str]) -> ParityReport:
        return reference.compare(GraphSession(emulate_half(graph, single)))

    def glanced(single: Sequence[str]) -> ParityReport:
        return reference.glance(GraphSession(emulate_half(graph, single)))

    half = to_half(
        graph, reference.request.images[:_PROBED], rounded, glanced, progress_bar("fp16 search")
    )
    try:
        require(half.parity, "the fp16 graph, rounded as a GPU rounds,")
    except ParityError as error:
        compare = lambda some: reference.compare(GraphSession(some))
        worst = half.first_failing(compare, rounded=True)
        raise ParityError(f"{error}; the first layer to fail it is {worst}. {ADVICE}") from None
    return half


def eight_bits(graph: onnx.ModelProto, reference: Reference) -> Quantised:
    """The int8 graph that passes the gate, of a fine-tuned network where it has to be.

    Raises:
        ParityError: none does; says which layer breaks it.
        ExportError: the frames are too few to calibrate on, or noise.
    """
    int8, steps = _quantised(graph, reference), reference.request.recipe.int8_finetune_steps
    if steps and not (report := _scored(int8, reference)).passed:
        loss = "; ".join(report.failures())
        logger.info("int8 loses too much (%s): fine-tuning for %d steps", loss, steps)
        learnt = _quantised(_finetuned(reference, steps), reference)
        if _scored(learnt, reference).merit > report.merit:
            int8 = replace(learnt, finetune_steps=steps)
    try:
        require(int8.parity, "the int8 graph")
    except ParityError as error:
        worst = int8.first_failing(lambda some: reference.compare(GraphSession(some)))
        raise ParityError(f"{error}; the first layer to fail it is {worst}. {ADVICE}") from None
    return int8


def _quantised(graph: onnx.ModelProto, reference: Reference) -> Quantised:
    request = reference.request
    return to_int8(
        graph,
        request.calibration,
        lambda some: reference.compare(GraphSession(some)),
        lambda some: reference.glance(GraphSession(some)),
        int32_bias=request.profile.engine is None,
        progress=progress_bar("int8 search"),
    )


def _scored(int8: Quantised, reference: Reference) -> ParityReport:
    """Its report, with mIoU where there are labels: these decide whether to fine-tune."""
    return reference.scored(int8.parity, GraphSession(int8.graph))


def _finetuned(reference: Reference, steps: int) -> onnx.ModelProto:
    """The graph, in single precision, of a network that has learnt to be quantised."""
    request = reference.request

    def logits(network: nn.Module, frames: Tensor) -> Tensor:
        return network(reference.deploy.normalise(frames.float().permute(0, 3, 1, 2)))

    bar = progress_bar("fine-tune", steps)
    network = finetune(request.model, request.calibration, logits, steps, bar)
    return single_precision(request, DeployModel(network, request.spec, request.answers).eval())
