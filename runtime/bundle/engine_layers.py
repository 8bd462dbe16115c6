"""The layers of a built engine, as TensorRT's inspector lists them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

# Layers that multiply cost the time; their kinds in networks and engines hold one of these.
_MULTIPLYING = ("CONV", "GEMM", "MATMUL", "MATRIX_MULTIPLY")
PRECISIONS = {"FLOAT": "fp32", "HALF": "fp16", "INT8": "int8", "BF16": "bf16", "FP8": "fp8"}
# What the inspector's descriptions of formats hold: "Half" as well as "Channel major FP16 format".
_FORMATS = {
    "Half": "HALF",
    "FP16": "HALF",
    "Float": "FLOAT",
    "FP32": "FLOAT",
    "Int8": "INT8",
    "BF16": "BF16",
    "FP8": "FP8",
}
_ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


class Layer(NamedTuple):
    """A layer of a network definition or an engine.

    Attributes:
        names: of the ONNX nodes that it came from.
        kind: such as CONVOLUTION.
        type: that it computes in: FLOAT, HALF, INT8 …
    """

    names: tuple[str, ...]
    kind: str
    type: str


def multiplies(kind: str) -> bool:
    """Whether layers of this kind are those that cost the time."""
    return any(part in kind for part in _MULTIPLYING)


def parse_inspection(text: str) -> list[Layer]:
    """The engine inspector's JSON → layers; the type is that of a layer's first input.

    Raises:
        ValueError: it lists names only, or is not what an inspector writes.
    """
    layers = []
    try:
        for layer in json.loads(text)["Layers"]:
            if isinstance(layer, str):  # the engine was built without details
                raise ValueError("the engine keeps no layer information; it cannot be proved")
            ports = layer.get("Inputs") or layer.get("Outputs") or [{}]
            described = ports[0].get("Format/Datatype", "")
            found = next((name for key, name in _FORMATS.items() if key in described), described)
            names = tuple(_ORIGIN.findall(layer.get("Metadata", ""))) or (layer["Name"],)
            layers.append(Layer(names, layer["LayerType"].upper(), found))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"the inspector's answer is not understood: {error!r}") from None
    return layers


def computed_in(layers: Sequence[Layer]) -> str | None:
    """The precision of most layers that multiply; None where none does."""
    kinds = Counter(layer.type for layer in layers if multiplies(layer.kind))
    if not kinds:
        return None
    most = kinds.most_common(1)[0][0]
    return PRECISIONS.get(most, most.lower())
