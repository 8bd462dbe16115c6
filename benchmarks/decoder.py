"""python -m benchmarks.decoder: what the light network's decoder costs, in ONNX Runtime.

The encoder alone, the encoder with the feature pyramid that we ship, and the encoder with LR-ASPP
(Howard et al., ICCV 2019), the usual light decoder, are exported and timed in turn.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.hardware import machine_line, machine_record
from benchmarks.timing import time_in_turn
from export.onnx_graph import export_graph
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


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decoder", description="Time the light network's decoder."
    )
    parser.add_argument("--calls", type=int, default=100, help="of each, after 10 to warm up (100)")
    parser.add_argument("--threads", type=int, default=0, help="of one inference; 0 is automatic")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the record as JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    args = build_parser().parse_args(arguments)
    record = measure(args.calls, args.threads)
    print(text(record))
    if args.out is not None:
        args.out.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def measure(calls: int, num_threads: int, input_hw: tuple[int, int] = (256, 512)) -> dict[str, Any]:
    """Export all three with fresh weights and time them in turn."""
    machine = machine_record()
    networks: dict[str, nn.Module] = {
        "encoder alone": EncoderAlone(),
        "feature pyramid": Lite0FPN(NUM_CLASSES),
        "LR-ASPP": LiteReducedASPP(),
    }
    runs = {name: _runner(network, input_hw, num_threads) for name, network in networks.items()}
    timings = time_in_turn(runs, calls, warm_up=10)
    rows = {
        name: {
            "parameters": sum(p.numel() for p in network.parameters()),
            **timings[name].record(),
        }
        for name, network in networks.items()
    }
    height, width = input_hw
    return {"size": f"{width}x{height}", "networks": rows, "machine": machine}


def _runner(
    network: nn.Module, input_hw: tuple[int, int], num_threads: int
) -> Callable[[], object]:
    graph = export_graph(network.eval(), torch.zeros(1, 3, *input_hw))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    image = np.random.default_rng(0).normal(size=(1, 3, *input_hw)).astype(np.float32)
    return lambda: session.run(None, {"image": image})


def text(record: dict[str, Any]) -> str:
    """The record for a terminal."""
    lines = [f"EfficientNet-Lite0, {record['size']}, fp32"]
    for name, row in record["networks"].items():
        lines.append(
            f"{name:<18}{row['parameters'] / 1e6:6.2f} M parameters   p50 {row['p50_ms']:7.2f} ms"
            f"   p99 {row['p99_ms']:7.2f} ms"
        )
    return "\n".join([*lines, machine_line(record["machine"])])


if __name__ == "__main__":
    sys.exit(main())
