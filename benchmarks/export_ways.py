"""The ways from a frame to a label map that ``benchmarks.graph`` times."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np
import onnx
import torch

from benchmarks.hardware import machine_record
from benchmarks.timing import time_in_turn
from export.graph.blocked_prelu import with_blocked_prelu
from export.graph.deploy import DeployModel
from export.graph.to_onnx import export_graph
from runtime.backends.ort_session import open_session
from runtime.images import resize_image
from runtime.sources.grammar import open_source
from sfda_edge.models import ModelSpec
from sfda_edge.models.inference import class_matrix
from sfda_edge.models.source_model import LoadedModel, ModelRequest, load_source

Segment = Callable[[np.ndarray], np.ndarray]


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Export each way, time them in turn, and compare their label maps."""
    source = load_source(ModelRequest(args.weights))
    frames = _frames(args.source, source.spec.input_hw)
    machine = machine_record()
    ways = _ways(source, args.threads)
    reference = [ways["our graph"][1](frame) for frame in frames]
    turns: dict[str, Callable[[], object]] = {
        name: _in_a_circle(segment, frames) for name, (_, segment) in ways.items()
    }
    timings = time_in_turn(turns, args.rounds)
    rows = {}
    for name, (graph, segment) in ways.items():
        agreement = np.mean(
            [(segment(f) == r).mean() for f, r in zip(frames, reference, strict=True)]
        )
        rows[name] = {
            "nodes": len(graph.graph.node),
            "bytes": graph.ByteSize(),
            "agreement_with_ours": round(float(agreement), 6),
            **timings[name].record(),
        }
    height, width = source.spec.input_hw
    model = f"{source.spec.architecture} {width}x{height}"
    return {"model": model, "ways": rows, "threads": args.threads, "machine": machine}


def _frames(source: str, input_hw: tuple[int, int], count: int = 8) -> list[np.ndarray]:
    with open_source(source) as frames:
        found = [frame.image for frame, _ in zip(iter(frames.read, None), range(count))]
    return [np.ascontiguousarray(resize_image(image, input_hw)) for image in found if image.size]


def _in_a_circle(segment: Segment, frames: list[np.ndarray]) -> Callable[[], np.ndarray]:
    following = cycle(frames)
    return lambda: segment(next(following))


def _ways(source: LoadedModel, num_threads: int) -> dict[str, tuple[onnx.ModelProto, Segment]]:
    spec = source.spec
    height, width = spec.input_hw
    deploy = DeployModel(source.network, spec).eval()
    frame = torch.zeros((1, height, width, 3), dtype=torch.uint8)
    bare = export_graph(source.network, torch.zeros(1, 3, height, width), translations={})
    plain = export_graph(deploy, frame, translations={})
    with_prelu = export_graph(deploy, frame)
    ours = with_blocked_prelu(with_prelu)
    return {
        "network + numpy": (bare, _with_numpy(_runner(bare, num_threads), spec)),
        "plain graph": (plain, _whole(_runner(plain, num_threads))),
        "our graph, PReLU as it is": (with_prelu, _whole(_runner(with_prelu, num_threads))),
        "our graph": (ours, _whole(_runner(ours, num_threads))),
    }


def _runner(graph: onnx.ModelProto, num_threads: int) -> Segment:
    session = open_session(graph.SerializeToString(), num_threads)
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def _whole(run: Segment) -> Segment:
    return lambda frame: run(frame[None])[0]


def _with_numpy(run: Segment, spec: ModelSpec) -> Segment:
    mean, std = (np.asarray(values, np.float32) for values in (spec.mean, spec.std))
    matrix = class_matrix(spec)
    joined = None if matrix is None else matrix.numpy()

    def segment(frame: np.ndarray) -> np.ndarray:
        image = (frame.astype(np.float32) / 255 - mean) / std
        scores = run(np.ascontiguousarray(image.transpose(2, 0, 1)[None]))[0]
        if joined is not None:
            relative = np.exp(scores - scores.max(0))
            scores = np.tensordot(joined, relative, 1)
        return scores.argmax(0).astype(np.uint8)

    return segment
