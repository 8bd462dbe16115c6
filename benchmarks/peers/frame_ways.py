"""Ways from a uint8 frame at the network's size to a label map, with the same weights.

What others write: the bare network as torch exports it, with NumPy around it; or torch's own
export of the whole way. The three of torch take the whole of our deploy model as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.peers import OURS
from export.graph.deploy import DeployModel
from export.graph.to_onnx import export_graph
from runtime.backends import open_backend
from runtime.backends.ort_session import open_session
from runtime.bundle.manifest import Manifest, read_manifest
from sfda_edge.errors import DataError
from sfda_edge.models import ModelSpec
from sfda_edge.models.inference import class_matrix
from sfda_edge.models.loaded_model import LoadedModel

Segment = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Subject:
    """The same weights in every form that a way needs.

    Attributes:
        source: the network and what it expects.
        bundle_dir, manifest: our export.
        bare: torch's own export of the network, as an ONNX file.
        whole: torch's own export of the whole way from frame to label map.
        num_threads: of one inference, the same for all.
    """

    source: LoadedModel
    bundle_dir: Path
    manifest: Manifest
    bare: Path
    whole: Path
    num_threads: int


def prepare(source: LoadedModel, bundle_dir: Path, work: Path, num_threads: int) -> Subject:
    """Export the bare network beside the bundle that is there already.

    Raises:
        DataError: the network takes grey images, which the ways of others are not written for.
    """
    if source.spec.num_channels != 3:
        raise DataError("peers are compared on networks of colour images; this one takes grey ones")
    height, width = source.spec.input_hw
    bare = work / "network.onnx"
    graph = export_graph(source.network, torch.zeros(1, 3, height, width), translations={})
    bare.write_bytes(graph.SerializeToString())
    whole, frame = work / "whole.onnx", torch.zeros((1, height, width, 3), dtype=torch.uint8)
    deploy = DeployModel(source.network, source.spec).eval()
    whole.write_bytes(export_graph(deploy, frame, translations={}).SerializeToString())
    # Each library reads other variables of the environment, or none: all are told.
    torch.set_num_threads(num_threads)
    manifest = read_manifest(bundle_dir)
    return Subject(source, bundle_dir, manifest, bare, whole=whole, num_threads=num_threads)


def openers(subject: Subject, stack: ExitStack) -> Mapping[str, Callable[[], Segment]]:
    """What opens each way; opening raises whatever its library raises.

    Args:
        subject: the weights.
        stack: closes what has to be closed.
    """
    ours = {
        f"{OURS}, {name}": partial(_ours, subject, name, stack)
        for name in ("onnxruntime", "openvino", "opencv")
    }
    exported = {
        "ONNX Runtime, all in the graph": _onnxruntime_whole,
        "OpenVINO, all in the graph": _openvino_whole,
        "ONNX Runtime + NumPy": _onnxruntime,
        "OpenVINO + NumPy": _openvino,
        "OpenCV DNN + NumPy": _opencv,
    }
    torch_ways = {
        "torch, eager": _eager,
        "torch, compiled": _compiled,
        "torch, TorchScript": _torchscript,
    }
    others = {name: partial(way, subject) for name, way in (exported | torch_ways).items()}
    return ours | others


def _ours(subject: Subject, name: str, stack: ExitStack) -> Segment:
    backend = open_backend(name, subject.bundle_dir, subject.manifest, subject.num_threads)
    return stack.enter_context(backend).infer


def _onnxruntime(subject: Subject) -> Segment:
    return _with_numpy(_in_onnxruntime(subject, subject.bare), subject.source.spec)


def _onnxruntime_whole(subject: Subject) -> Segment:
    run = _in_onnxruntime(subject, subject.whole)
    return lambda frame: run(frame[None])[0]


def _openvino(subject: Subject) -> Segment:
    return _with_numpy(_in_openvino(subject, subject.bare), subject.source.spec)


def _openvino_whole(subject: Subject) -> Segment:
    run = _in_openvino(subject, subject.whole)
    return lambda frame: run(frame[None])[0]


def _in_onnxruntime(subject: Subject, model: Path) -> Segment:
    session = open_session(model, subject.num_threads)
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def _in_openvino(subject: Subject, model: Path) -> Segment:
    from runtime.backends.openvino import compiled_apart

    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": subject.num_threads,
    }
    compiled = compiled_apart(str(model), settings)
    return lambda batch: np.asarray(compiled([batch])[0])


def _opencv(subject: Subject) -> Segment:
    import cv2

    cv2.setNumThreads(subject.num_threads)
    network = cv2.dnn.readNetFromONNX(str(subject.bare))

    def run(batch: np.ndarray) -> np.ndarray:
        network.setInput(batch)
        return np.asarray(network.forward())

    return _with_numpy(run, subject.source.spec)


def _eager(subject: Subject) -> Segment:
    return _with_torch(DeployModel(subject.source.network, subject.source.spec).eval())


def _compiled(subject: Subject) -> Segment:
    deploy = DeployModel(subject.source.network, subject.source.spec).eval()
    segment = _with_torch(torch.compile(deploy))
    segment(_blank(subject))  # it compiles here, not in the first measured call
    return segment


def _torchscript(subject: Subject) -> Segment:
    deploy = DeployModel(subject.source.network, subject.source.spec).eval()
    with torch.inference_mode(), warnings.catch_warnings():
        # It warns that the size is fixed, as it is for every way here, and of its own age.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(deploy, torch.from_numpy(_blank(subject)[None]))
        frozen = torch.jit.freeze(traced)
    return _with_torch(frozen)


def _blank(subject: Subject) -> np.ndarray:
    return np.zeros((*subject.manifest.input_hw, 3), np.uint8)


def _with_torch(network: Callable[[torch.Tensor], Any]) -> Segment:
    def segment(frame: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            labels: np.ndarray = network(torch.from_numpy(frame[None]))[0][0].numpy()
        return labels

    return segment


def _with_numpy(run: Segment, spec: ModelSpec) -> Segment:
    """Normalise, run, enlarge, join classes where the model maps them, arg-max."""
    mean, std = (np.asarray(values, np.float32) for values in (spec.mean, spec.std))
    matrix = class_matrix(spec)
    joined = None if matrix is None else matrix.numpy()

    def segment(frame: np.ndarray) -> np.ndarray:
        image = (frame.astype(np.float32) / 255 - mean) / std
        image = image[..., ::-1] if spec.bgr else image
        scores = run(np.ascontiguousarray(image.transpose(2, 0, 1)[None]))[0]
        if scores.shape[1:] != frame.shape[:2]:
            scores = np.stack([cv2.resize(one, frame.shape[1::-1]) for one in scores])
        if joined is not None:
            relative = np.exp(scores - scores.max(0))
            scores = np.tensordot(joined, relative, 1)
        return scores.argmax(0).astype(np.uint8)

    return segment
