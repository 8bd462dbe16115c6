"""What an ONNX Runtime session really did: which provider ran its layers, in which precision.

A session's list of providers says what it may use. Its profile says what it used.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Layers that do nearly all of a network's arithmetic; names of fused ones begin with these.
_HEAVY = ("Conv", "FusedConv", "QLinearConv", "ConvTranspose", "MatMul", "FusedMatMul", "Gemm")
_PRECISIONS = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8"}
_PRECISIONS["uint8"] = "int8"


@dataclass(frozen=True)
class Profile:
    """One run.

    Attributes:
        providers: number of layers that each provider ran.
        heavy_types: number of convolutions and matrix products by the type of what they read.
    """

    providers: Counter[str]
    heavy_types: Counter[str]

    @property
    def precision(self) -> str:
        """What most of the arithmetic is done in; ``engine`` where a provider fuses it all."""
        if not self.heavy_types:
            return "engine"
        kinds = Counter(_PRECISIONS.get(kind, kind) for kind in self.heavy_types.elements())
        return kinds.most_common(1)[0][0]

    @property
    def provider(self) -> str:
        """The provider that ran the most layers; the others in brackets."""
        (first, _), *others = self.providers.most_common()
        added = ", ".join(f"{count} layers by {name}" for name, count in others)
        return f"{first} ({added})" if added else first


def read_profile(path: Path) -> Profile:
    """Read what ``InferenceSession.end_profiling`` wrote, and delete the file."""
    events = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    layers = [event["args"] for event in events if _is_kernel(event)]
    providers = Counter(layer["provider"] for layer in layers)
    heavy = Counter(_read_type(layer) for layer in layers if layer["op_name"].startswith(_HEAVY))
    return Profile(providers, heavy)


def _is_kernel(event: dict[str, Any]) -> bool:
    return event.get("cat") == "Node" and event["name"].endswith("kernel_time")


def _read_type(layer: dict[str, Any]) -> str:
    """The type of a layer's first input."""
    inputs = layer.get("input_type_shape") or [{"": []}]
    return next(iter(inputs[0]), "")
