"""ExportRequest: what to export, and what it must reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from torch import nn

from export.engine.request import EngineRequest
from export.graph.deploy import FULL_LABEL_MAP, Outputs
from export.profiles import CPU, Profile
from export.thresholds import Thresholds
from sfda_edge.models import ModelSpec


class Labelled(Protocol):
    """Images (H, W, 3) with their label maps (H, W), uint8, as often as they are asked for."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]: ...


@dataclass(frozen=True, eq=False, kw_only=True)
class ExportRequest:
    """What to export.

    Attributes:
        model: on the CPU, in evaluation mode.
        spec: of the model.
        images: target frames for the gate, each (H, W, 3) uint8 at the input size.
        validation: labelled images, with their label maps (H, W) uint8; the finished graph is
            scored on them, and whether int8 needs fine-tuning; no search sees them.
        calibration: further target frames, which int8 is calibrated on.
        precision: fp32, fp16 or int8.
        outputs: of the graph.
        profile: where it will run.
        dynamic_batch: whether the graph takes any number of images at once.
        thresholds: of the gate.
        provenance: where the model came from, for the manifest and the card.
        pictures: whether the card shows target frames, which then go with the bundle.
        before: the network before it was adapted, for the card.
        engine: to build from the graph and ship beside it; None for none.
    """

    model: nn.Module
    spec: ModelSpec
    images: Sequence[np.ndarray]
    validation: Labelled = ()
    calibration: Sequence[np.ndarray] = ()
    precision: str = "fp32"
    outputs: Outputs = FULL_LABEL_MAP
    profile: Profile = CPU
    dynamic_batch: bool = False
    thresholds: Thresholds = field(default_factory=Thresholds)
    provenance: dict[str, Any] = field(default_factory=dict)
    pictures: bool = True
    before: nn.Module | None = None
    engine: EngineRequest | None = None
