"""torch → ONNX, with the graph kept small."""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import logging
import math
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import EncodeError
from onnxscript import opset18 as op
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from export.errors import ExportError
from export.profiles import CPU, Profile
from sfda_edge.errors import line_of

INPUT_NAME = "image"
MOST_IMAGES = 64  # of a dynamic batch
_LARGEST_WINDOW = 100_000  # of TensorRT's pooling
NETWORK_SCOPE = "network.network"  # where DeployModel keeps the user's network


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
    """``adaptive_avg_pool2d`` as one pooling, or as two products with constant matrices.

    The exporter's own form of sizes that do not divide is a Gather and an Add for every window
    element. Pooling is separable and linear: rows · x · columns. A mean over everything is said to
    be one: TensorRT makes a reduction of it, which takes any size, and half precision spares it.
    """
    size = [int(side) for side in x.shape[2:]]
    pooled = [int(side) for side in output_size]
    if pooled == [1, 1]:
        return op.GlobalAveragePool(x)
    window = [s // p for s, p in zip(size, pooled, strict=True)]
    divides = all(s % p == 0 for s, p in zip(size, pooled, strict=True))
    if divides and math.prod(window) < _LARGEST_WINDOW:
        return op.AveragePool(x, kernel_shape=window, strides=window)
    rows = op.Constant(value=onnx.numpy_helper.from_array(pooling_matrix(size[0], pooled[0])))
    columns = op.Constant(
        value=onnx.numpy_helper.from_array(
            np.ascontiguousarray(pooling_matrix(size[1], pooled[1]).T)
        )
    )
    return op.MatMul(rows, op.MatMul(x, columns))


def _average_pool(
    x: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """``avg_pool2d``; with ``ceil_mode`` as a pooling of explicitly padded values.

    ONNX Runtime before 1.24 divides the windows that reach over the border by the whole kernel.
    Torch counts ``padding`` in, but not what lies beyond it: so that is padded with zeros first,
    and the rest by the pooling itself, which does not count it.
    """
    kernel, pads = _pair(kernel_size), _pair(padding)
    strides = _pair(stride) if stride else kernel
    beyond = [0, 0]
    if ceil_mode:
        sizes = [int(side) for side in x.shape[2:]]
        beyond = [_beyond(*one) for one in zip(sizes, kernel, strides, pads, strict=True)]
    if not any(beyond):
        found = op.AveragePool(
            x,
            kernel_shape=kernel,
            strides=strides,
            pads=[*pads, *pads],
            count_include_pad=int(count_include_pad),
        )
    else:
        if count_include_pad and any(pads):
            amounts: Any = op.Constant(value_ints=[0, 0, *pads, 0, 0, *pads])
            x = op.Pad(x, amounts)
            pads = [0, 0]
        ends = [pad + more for pad, more in zip(pads, beyond, strict=True)]
        found = op.AveragePool(x, kernel_shape=kernel, strides=strides, pads=[*pads, *ends])
    if divisor_override is not None:
        factor = math.prod(kernel) / divisor_override
        found = op.Mul(found, op.Constant(value_float=factor))
    return found


def _pair(value: Any) -> list[int]:
    """One number for both axes, or one for each."""
    values = [int(one) for one in value] if isinstance(value, Sequence) else [int(value)]
    return values if len(values) == 2 else [values[0], values[0]]


def _beyond(size: int, kernel: int, stride: int, pad: int) -> int:
    """How far the last window of ``ceil_mode`` reaches beyond the padded axis."""
    windows = math.ceil((size + 2 * pad - kernel) / stride) + 1
    if (windows - 1) * stride >= size + pad:  # it would begin in the padding
        windows -= 1
    return max(0, (windows - 1) * stride + kernel - (size + 2 * pad))


TRANSLATIONS: dict[Callable, Callable] = {
    torch.ops.aten.avg_pool2d.default: _average_pool,
    torch.ops.aten._adaptive_avg_pool2d.default: _adaptive_average_pool,
    torch.ops.aten.adaptive_avg_pool2d.default: _adaptive_average_pool,
}


def export_graph(
    model: nn.Module,
    example: torch.Tensor,
    *,
    output_names: Sequence[str] = ("label_map",),
    profile: Profile = CPU,
    dynamic_batch: bool = False,
    translations: dict[Callable, Callable] | None = None,
) -> onnx.ModelProto:
    """Export with one input ``image``; nodes are named by the module that they come from.

    Args:
        model: in evaluation mode.
        example: an input of the shape to export.
        output_names: of its outputs.
        profile: opset and file format.
        dynamic_batch: the first axis of the input is free, and so are those of the outputs.
        translations: how to write single operators; ours unless told otherwise.

    Raises:
        ExportError: torch cannot export the network, or the checker refuses the graph.
    """
    options = {
        "opset_version": profile.opset,
        "output_names": list(output_names),
        "custom_translation_table": TRANSLATIONS if translations is None else translations,
    }
    batch = ({0: torch.export.Dim("batch", min=1, max=MOST_IMAGES)},)
    # A network that keeps tensors would keep those of a failed export.
    fresh = copy.deepcopy(model) if dynamic_batch else model
    try:
        program = _torch_export(model, example, batch if dynamic_batch else None, options)
    except Exception as error:  # the exporter wraps whatever its stages raise
        if dynamic_batch and _exports_with_one_image(fresh, example, options):
            raise ExportError(
                "the network cannot take a dynamic batch: it fixes the number of images while it "
                "runs, such as by keeping a tensor of the last batch's shape. Export without "
                "--dynamic-batch, or make such tensors with the shape of each input"
            ) from error
        reason = _reason(error, _files_of(model))
        raise ExportError(f"torch cannot export this network: {reason}") from error
    graph: onnx.ModelProto = program.model_proto
    graph.ir_version = profile.ir_version
    _name_nodes(graph)
    check_graph(graph, "the exported graph")
    return graph


def _torch_export(
    model: nn.Module, example: torch.Tensor, dynamic_shapes: Any, options: dict[str, Any]
) -> torch.onnx.ONNXProgram:
    # Fused attention is taken apart with other strides than it is traced with.
    with _quiet(), sdpa_kernel(SDPBackend.MATH):
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            external_data=False,
            input_names=[INPUT_NAME],
            dynamic_shapes=dynamic_shapes,
            verbose=False,
            **options,
        )
    assert program is not None
    return program


def _exports_with_one_image(
    model: nn.Module, example: torch.Tensor, options: dict[str, Any]
) -> bool:
    try:
        _torch_export(model, example[:1], None, options)
    except Exception:  # whatever the exporter's stages raise
        return False
    return True


def check_graph(graph: onnx.ModelProto, what: str) -> None:
    """ONNX's own checker, with strict inference of types and shapes.

    Raises:
        ExportError: it refuses the graph.
    """
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{what} is not valid ONNX: {error}") from None
    except EncodeError:
        raise ExportError(f"{what} is above 2 GB, the most that an ONNX file holds") from None


def _name_nodes(graph: onnx.ModelProto) -> None:
    """``module.path/Operator`` instead of the exporter's counters, and nothing of its notes.

    The names show up in profilers, engines and our own messages; the notes hold the paths and
    source lines of the machine that exported.
    """
    _name_nodes_of(graph.graph, Counter())
    del graph.metadata_props[:]


def _name_nodes_of(graph: onnx.GraphProto, used: Counter[str]) -> None:
    for node in graph.node:
        notes = {entry.key: entry.value for entry in node.metadata_props}
        scopes = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "['']"))
        module = scopes[-2] if len(scopes) > 1 else ""
        name = f"{module.removeprefix(NETWORK_SCOPE).lstrip('.')}/{node.op_type}".lstrip("/")
        used[name] += 1
        node.name = name if used[name] == 1 else f"{name}_{used[name]}"
        del node.metadata_props[:]
        for attribute in node.attribute:  # of If and Loop
            only = [attribute.g] if attribute.HasField("g") else []
            for inner in (*only, *attribute.graphs):
                _name_nodes_of(inner, used)
    for tensor in (*graph.input, *graph.value_info, *graph.initializer, *graph.output):
        del tensor.metadata_props[:]
    del graph.metadata_props[:]


def _reason(error: BaseException, files: Container[str]) -> str:
    """The innermost cause, and where in the network: the exporter's outer words are of itself."""
    while error.__cause__ is not None:
        error = error.__cause__
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return reason + line_of(error, files)


def _files_of(model: nn.Module) -> set[str]:
    """The source files of a model's modules, without torch's own."""
    modules = {type(module).__module__ for module in model.modules()}
    return {
        getattr(sys.modules.get(name), "__file__", None) or ""
        for name in modules
        if name.partition(".")[0] != "torch"
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's progress, its graphs where it fails, and deprecations inside torch."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # what fails is raised, too
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
