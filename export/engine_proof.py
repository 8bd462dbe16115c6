"""Prove that an engine computes in the precision that was asked for.

Asking is not enough: on TensorRT 11 a request for half precision by flag gave a single-precision
engine without a word (roboflow/rf-detr#1453).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from export.errors import ExportError

# The layers that cost the time, by the first letters of their kinds in network and engine.
_COMPUTING = ("CONV", "CASKCONV", "DECONV", "GEMM", "MATRIX_MULTIPLY", "MATMUL")
_TYPES = {"fp32": "FLOAT", "fp16": "HALF", "int8": "INT8"}
# Of the computing layers of an int8 engine; the others were kept in higher precision on purpose.
_LEAST_INT8 = 0.5


class Layer(NamedTuple):
    """A layer of a network definition or an engine.

    Attributes:
        name: of the ONNX nodes that it came from.
        kind: such as CONVOLUTION.
        type: that it computes in: FLOAT, HALF, INT8 …
    """

    name: str
    kind: str
    type: str


def require_precision(layers: Sequence[Layer], precision: str, single: Sequence[str]) -> None:
    """Check the type of every layer that computes.

    Args:
        layers: of the network or the engine.
        precision: fp32, fp16 or int8.
        single: names of nodes that may be in single precision in an fp16 engine.

    Raises:
        ExportError: the engine computes in another precision than was asked for.
    """
    computing = [layer for layer in layers if layer.kind.startswith(_COMPUTING)]
    if not computing:
        raise ExportError("no layer of the engine computes: its precision cannot be proved")
    wanted = _TYPES[precision]
    allowed = set(single)
    wrong = [
        layer
        for layer in computing
        if layer.type != wanted and not (precision == "fp16" and layer.name in allowed)
    ]
    share = 1 - len(wrong) / len(computing)
    if wrong and not (precision == "int8" and share >= _LEAST_INT8):
        named = ", ".join(f"{layer.name} ({layer.type})" for layer in wrong[:3])
        raise ExportError(
            f"asked for {precision}, but {len(wrong)} of {len(computing)} layers that compute are "
            f"of another type: {named}"
        )
