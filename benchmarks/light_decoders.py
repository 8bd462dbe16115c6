"""The decoders that ``benchmarks.decoder`` times, on the same encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.measuring.closed_loop import Effort, measure_in_turn
from export.graph.to_onnx import export_graph
from runtime.backends.ort_session import open_session
from sfda_edge.models.lite0_fpn import Encoder, Lite0FPN

NUM_CLASSES = 11
ALL_STAGES = 7


class EncoderAlone(nn.Module):
    """The deepest feature, (N, 320, H/32, W/32)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(ALL_STAGES)

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images)[-1]


class LiteReducedASPP(nn.Module):
    """LR-ASPP on the same encoder: a gated projection, and a skip at stride 8."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.encoder = Encoder(ALL_STAGES)
        deep, skip = self.encoder.tap_channels[-1], self.encoder.tap_channels[2]
        self.project = nn.Sequential(
            nn.Conv2d(deep, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(deep, width, 1, bias=False), nn.Sigmoid()
        )
        self.low, self.high = nn.Conv2d(skip, NUM_CLASSES, 1), nn.Conv2d(width, NUM_CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.encoder(images)
        deep, skip = features[-1], features[2]
        gated = self.project(deep) * self.gate(deep)
        gated = functional.interpolate(gated, skip.shape[-2:], mode="bilinear")
        logits = self.low(skip) + self.high(gated)
        return functional.interpolate(logits, images.shape[-2:], mode="bilinear")


def measure(rounds: int, num_threads: int, input_hw: tuple[int, int]) -> dict[str, dict[str, Any]]:
    """Figures of all three, exported with fresh weights and timed in turn."""
    networks: dict[str, nn.Module] = {
        "encoder only": EncoderAlone(),
        "feature pyramid": Lite0FPN(NUM_CLASSES),
        "LR-ASPP": LiteReducedASPP(),
    }
    runs = {name: _runner(network, input_hw, num_threads) for name, network in networks.items()}
    measured = measure_in_turn(runs, Effort(10 * rounds, min_seconds=0))
    return {
        name: {
            "parameters": sum(p.numel() for p in network.parameters()),
            **measured[name].record(),
        }
        for name, network in networks.items()
    }


def _runner(
    network: nn.Module, input_hw: tuple[int, int], num_threads: int
) -> Callable[[], object]:
    graph = export_graph(network.eval(), torch.zeros(1, 3, *input_hw))
    session = open_session(graph.SerializeToString(), num_threads)
    image = np.random.default_rng(0).normal(size=(1, 3, *input_hw)).astype(np.float32)
    return lambda: session.run(None, {"image": image})
