"""torch → ONNX, with the graph kept small."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import torch
from onnxscript import opset18 as op
from torch import nn

from export.errors import ExportError

OPSET = 18
# ONNX Runtime 1.20, TensorRT 10 and later read it; onnx itself would write a newer one.
IR_VERSION = 10
INPUT_NAME, OUTPUT_NAME = "image", "label_map"


def pooling_matrix(size: int, pooled: int) -> np.ndarray:
    """Adaptive average pooling of one axis as a matrix (pooled, size).

    Output i is the mean of inputs floor(i·size/pooled) to ceil((i+1)·size/pooled) − 1.
    """
    matrix = np.zeros((pooled, size), np.float32)
    for row in range(pooled):
        start, stop = row * size // pooled, math.ceil((row + 1) * size / pooled)
        matrix[row, start:stop] = 1 / (stop - start)
    return matrix


def _adaptive_average_pool(x: Any, output_size: Any) -> Any:
    """``adaptive_avg_pool2d`` as one AveragePool, or as two products with constant matrices.

    The exporter's own form of sizes that do not divide is a Gather and an Add for every window
    element. Pooling is separable and linear: rows · x · columns.
    """
    size = [int(side) for side in x.shape[2:]]
    pooled = [int(side) for side in output_size]
    if all(s % p == 0 for s, p in zip(size, pooled, strict=True)):
        stride = [s // p for s, p in zip(size, pooled, strict=True)]
        return op.AveragePool(x, kernel_shape=stride, strides=stride)
    rows = op.Constant(value=onnx.numpy_helper.from_array(pooling_matrix(size[0], pooled[0])))
    columns = op.Constant(
        value=onnx.numpy_helper.from_array(
            np.ascontiguousarray(pooling_matrix(size[1], pooled[1]).T)
        )
    )
    return op.MatMul(rows, op.MatMul(x, columns))


TRANSLATIONS: dict[Callable, Callable] = {
    torch.ops.aten._adaptive_avg_pool2d.default: _adaptive_average_pool,
    torch.ops.aten.adaptive_avg_pool2d.default: _adaptive_average_pool,
}


def export_graph(
    model: nn.Module, example: torch.Tensor, translations: dict[Callable, Callable] | None = None
) -> onnx.ModelProto:
    """Export with fixed shapes; one input ``image``, one output ``label_map``.

    Args:
        model: in evaluation mode.
        example: an input of the shape to export.
        translations: how to write single operators; ours unless told otherwise.

    Raises:
        ExportError: torch cannot export the network, or the checker refuses the graph.
    """
    table = TRANSLATIONS if translations is None else translations
    try:
        with _quiet():
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                external_data=False,
                opset_version=OPSET,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                verbose=False,
                custom_translation_table=table,
            )
    except Exception as error:  # the exporter wraps whatever its stages raise
        raise ExportError(f"torch cannot export this network: {_reason(error)}") from error
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    graph.ir_version = IR_VERSION
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph is not valid ONNX: {error}") from None
    return graph


def _reason(error: BaseException) -> str:
    """The innermost cause: the exporter's outer messages are about itself."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's progress, its note on torchvision, and deprecations inside torch."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
