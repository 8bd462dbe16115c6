"""Write a bundle: graph, manifest and model card; whole, proved, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from export.card import model_card
from export.deploy import DeployModel
from export.errors import ExportError
from export.onnx_graph import export_graph
from export.parity import THRESHOLDS, ParityReport, compare, require
from export.precision import to_fp16
from runtime.backends import open_backend
from runtime.manifest import MANIFEST_FILE, Manifest, file_sha256
from sfda_edge.models import ModelSpec

MODEL_FILE, CARD_FILE = "model.onnx", "card.md"


@dataclass(frozen=True, eq=False)
class ExportRequest:
    """What to export.

    Attributes:
        model: on the CPU, in evaluation mode.
        spec: of the model.
        images: target frames for the gate, each (H, W, 3) uint8 at the input size.
        precision: a key of ``THRESHOLDS``.
        provenance: where the model came from, for the manifest and the card.
    """

    model: nn.Module
    spec: ModelSpec
    images: Sequence[np.ndarray]
    precision: str = "fp32"
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Attributes:
        num_nodes: of the graph.
        size_bytes: of the ONNX file.
        parity: against the torch model.
    """

    num_nodes: int
    size_bytes: int
    parity: ParityReport


def export_bundle(request: ExportRequest, out_dir: Path) -> ExportResult:
    """Export, compare with the torch model, and put the bundle in ``out_dir``.

    Everything is written and proved in a folder beside ``out_dir``, which then takes its place: a
    failure or a kill leaves an old bundle as it was.

    Raises:
        ExportError: the network cannot be exported, or ``out_dir`` cannot be written or is
            something else than a bundle.
        ParityError: the graph does not answer as the model does.
    """
    out_dir = out_dir.resolve()
    _require_replaceable(out_dir)
    deploy = DeployModel(request.model, request.spec).eval()
    graph = _graph(request, deploy)
    part_dir = out_dir.with_name(f".{out_dir.name}.part")
    try:
        shutil.rmtree(part_dir, ignore_errors=True)
        part_dir.mkdir(parents=True)
        result = _write(request, deploy, graph, part_dir)
        _swap(part_dir, out_dir)
    except OSError as error:
        raise ExportError(f"cannot write {out_dir}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(part_dir, ignore_errors=True)
    return result


def _require_replaceable(out_dir: Path) -> None:
    """Only a bundle of ours, with nothing of the user's in it, may be replaced."""
    if out_dir.exists() and not out_dir.is_dir():
        raise ExportError(f"{out_dir} is a file; choose another --out")
    if not out_dir.exists() or not any(out_dir.iterdir()):
        return
    foreign = {path.name for path in out_dir.iterdir()} - {MODEL_FILE, CARD_FILE, MANIFEST_FILE}
    if foreign or not _is_manifest(out_dir / MANIFEST_FILE):
        found = f" (it holds {', '.join(sorted(foreign)[:3])})" if foreign else ""
        raise ExportError(
            f"{out_dir} exists and is not a bundle of ours{found}; choose another --out"
        )


def _is_manifest(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "schema" in content and "model_file" in content


def _graph(request: ExportRequest, deploy: nn.Module) -> onnx.ModelProto:
    height, width = request.spec.input_hw
    graph = export_graph(deploy, torch.zeros((1, height, width, 3), dtype=torch.uint8))
    return to_fp16(graph) if request.precision == "fp16" else graph


def _write(
    request: ExportRequest, deploy: nn.Module, graph: onnx.ModelProto, part_dir: Path
) -> ExportResult:
    _add_metadata(graph, request)
    path = part_dir / MODEL_FILE
    onnx.save(graph, path)
    parity = _prove(request, deploy, part_dir)
    require(parity, f"the {request.precision} graph")
    provenance = {**request.provenance, "parity": parity.record()}
    card = model_card(request.spec, request.precision, provenance)
    (part_dir / CARD_FILE).write_text(card, encoding="utf-8", errors="backslashreplace")
    manifest = _manifest(request, part_dir, provenance)
    (part_dir / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return ExportResult(len(graph.graph.node), path.stat().st_size, parity)


def _manifest(request: ExportRequest, folder: Path, provenance: dict[str, Any]) -> Manifest:
    return Manifest(
        model_file=MODEL_FILE,
        sha256={name: file_sha256(folder / name) for name in (MODEL_FILE, CARD_FILE)},
        input_hw=request.spec.input_hw,
        label_space=request.spec.answer_space,
        precision=request.precision,
        provenance=provenance,
    )


def _add_metadata(graph: onnx.ModelProto, request: ExportRequest) -> None:
    """The facts that a lone .onnx file should carry."""
    space = request.spec.answer_space
    facts = {
        "class_names": json.dumps(space.names),
        "palette": json.dumps(space.palette),
        "precision": request.precision,
        "provenance": json.dumps(request.provenance),
        "input": "uint8 RGB (1, H, W, 3)",
        "output": "uint8 labels (1, H, W)",
    }
    onnx.helper.set_model_props(graph, facts)


@torch.inference_mode()
def _prove(request: ExportRequest, deploy: nn.Module, part_dir: Path) -> ParityReport:
    def reference(image: np.ndarray) -> np.ndarray:
        return deploy(torch.from_numpy(image)[None])[0].numpy()

    space = request.spec.answer_space
    unproved = Manifest(MODEL_FILE, {}, request.spec.input_hw, space, request.precision)
    with open_backend("onnxruntime", part_dir, unproved) as backend:
        threshold = THRESHOLDS[request.precision]
        return compare(reference, backend.infer, request.images, space, threshold)


def _swap(part_dir: Path, out_dir: Path) -> None:
    """Put the finished folder in place; an old bundle is removed only after that."""
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    old_dir = out_dir.with_name(f".{out_dir.name}.old")
    shutil.rmtree(old_dir, ignore_errors=True)
    if out_dir.exists():
        out_dir.replace(old_dir)
    try:
        part_dir.replace(out_dir)
    except OSError:
        if old_dir.exists():
            old_dir.replace(out_dir)
        raise
    shutil.rmtree(old_dir, ignore_errors=True)
