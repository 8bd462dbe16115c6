"""Prove that an engine computes in the precision that was asked for.

Asking is not enough: on TensorRT 11 a request for half precision by flag gave a single-precision
engine without a word (roboflow/rf-detr#1453).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from export.errors import ExportError
from runtime.bundle.engine_layers import Layer, multiplies

_TYPES = {"fp32": "FLOAT", "fp16": "HALF", "int8": "INT8"}


def require_precision(layers: Sequence[Layer], precision: str, single: Iterable[str]) -> None:
    """Check the type of every layer that multiplies.

    Args:
        layers: of the network or the engine.
        precision: fp32, fp16 or int8.
        single: names of the ONNX nodes that stay in single precision on purpose.

    Raises:
        ExportError: the engine computes in another precision than was asked for.
    """
    multiplying = [layer for layer in layers if multiplies(layer.kind)]
    wanted, meant = _TYPES[precision], set(single)
    wrong = [
        layer
        for layer in multiplying
        if layer.type != wanted and not (layer.type == "FLOAT" and meant & set(layer.names))
    ]
    if wrong:
        named = ", ".join(f"{' + '.join(layer.names)} ({layer.type})" for layer in wrong[:3])
        raise ExportError(
            f"asked for {precision}, but {len(wrong)} of {len(multiplying)} layers that multiply "
            f"are of another type: {named}"
        )
    if not any(layer.type == wanted for layer in multiplying):
        raise ExportError(f"no layer that multiplies is of {precision}: it cannot be proved")
