"""Time of a frame against the size of the input, and against the number of classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.measuring.closed_loop import Effort, measure_in_turn
from export.graph.blocked_prelu import with_blocked_prelu
from export.graph.deploy import DeployModel
from export.graph.to_onnx import export_graph
from runtime.backends.ort_session import open_session
from runtime.bundle.labels import LabelSpace
from sfda_edge.models import ModelSpec, build_model
from sfda_edge.models.source_model import ModelRequest, load_source

_IMAGE = np.random.default_rng(0)


def measure_sizes(
    sizes_hw: tuple[tuple[int, int], ...], effort: Effort, threads: int
) -> dict[str, dict[str, Any]]:
    """Our graph of the packaged network at each size, timed in turn."""
    ways: dict[str, tuple[Callable[[], object], int]] = {}
    for height, width in sizes_hw:
        source = load_source(ModelRequest(size_hw=(height, width)))
        call = _call(source.network, source.spec, threads)
        ways[f"{width}x{height}"] = (call, height * width)
    found = _timed({name: call for name, (call, _) in ways.items()}, effort)
    for name, (_, pixels) in ways.items():
        found[name]["megapixels"] = pixels / 1e6
        found[name]["ms_per_megapixel"] = round(found[name]["p50_ms"] / pixels * 1e6, 2)
    return found


def measure_classes(
    counts: tuple[int, ...], effort: Effort, threads: int
) -> dict[str, dict[str, Any]]:
    """The packaged network's architecture with each number of classes and random weights."""
    spec = load_source(ModelRequest()).spec
    calls = {}
    for count in counts:
        names = tuple(f"class {number}" for number in range(count))
        colours = tuple(((37 * n) % 256, (101 * n) % 256, (11 * n) % 256) for n in range(count))
        with_classes = replace(spec, label_space=LabelSpace(names, colours), class_map=None)
        network = build_model(with_classes).eval()
        calls[f"{count} classes"] = _call(network, with_classes, threads)
    found = _timed(calls, effort)
    for name in found:
        found[name]["classes"] = int(name.partition(" ")[0])
    return found


def _timed(calls: Mapping[str, Callable[[], object]], effort: Effort) -> dict[str, dict[str, Any]]:
    return {name: one.record() for name, one in measure_in_turn(calls, effort).items()}


def _call(network: torch.nn.Module, spec: ModelSpec, threads: int) -> Callable[[], object]:
    """The whole way from a uint8 frame to a label map, in ONNX Runtime."""
    height, width = spec.input_hw
    frame = torch.zeros((1, height, width, 3), dtype=torch.uint8)
    graph = with_blocked_prelu(export_graph(DeployModel(network, spec).eval(), frame))
    session = open_session(graph.SerializeToString(), threads)
    name = session.get_inputs()[0].name
    image = _IMAGE.integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    return lambda: session.run(None, {name: image})
