"""Write a bundle: graph, manifest, model card and picture; whole and checked, or not at all."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from export.bundle.card import model_card
from export.bundle.directory import (
    CARD_FILE,
    MODEL_FILE,
    PICTURE_FILE,
    replacing,
    require_replaceable,
)
from export.bundle.golden import drawn_frame, write_golden
from export.bundle.picture import draw_card
from export.bundle.provenance import graph_sha256
from export.engine.request import build_engine
from export.errors import ParityError
from export.gate.argmax_cost import measure_argmax_cost
from export.gate.parity import require, require_same_in_a_batch
from export.gate.reference import Reference
from export.gate.report import ParityReport
from export.gate.scores import BundleScores, LabelMap
from export.graph.ort_session import GraphSession
from export.precision.half import HalfPrecision
from export.precision.int8 import Quantised, int8_facts
from export.precision.pipeline import (
    ADVICE,
    as_fp32,
    eight_bits,
    half_precision,
    single_precision,
    with_full_labels,
)
from export.request import ExportRequest
from export.result import ExportResult
from runtime.backends import open_backend
from runtime.bundle.engine_file import LIBRARIES, engine_paths, timing_cache_path
from runtime.bundle.manifest import MANIFEST_FILE, GoldenFacts, Manifest, file_sha256

logger = logging.getLogger(__name__)
# A conversion, or the graph in single precision itself.
Made = HalfPrecision | Quantised | onnx.ModelProto


def export_bundle(request: ExportRequest, out_dir: Path) -> ExportResult:
    """Export, compare with the torch model, and put the bundle in ``out_dir``.

    Everything is written and checked in a folder beside ``out_dir``, which then takes its place: a
    failure or a kill leaves an old bundle as it was.

    Raises:
        ExportError: the network cannot be exported, or ``out_dir`` cannot be written or is
            something else than a bundle.
        ParityError: the graph differs from the model.
    """
    out_dir = out_dir.resolve()
    require_replaceable(out_dir)
    if out_dir.exists():
        logger.info("%s is there, and will be replaced", out_dir)
    reference = Reference(request)
    with replacing(out_dir) as folder:
        result = _write(folder, reference)
        _keep_timings(out_dir, folder)
        if request.engine is not None:
            result = replace(result, engine=build_engine(folder, request.engine))
        _warn_of_lost_engines(out_dir, folder)
        require_replaceable(out_dir)  # which may have changed in these minutes
        return result


def _keep_timings(old_dir: Path, folder: Path) -> None:
    """What earlier builds have measured serves the next one, of whatever graph."""
    for library in LIBRARIES:
        if timing_cache_path(old_dir, library).is_file():
            shutil.copyfile(timing_cache_path(old_dir, library), timing_cache_path(folder, library))


def _warn_of_lost_engines(old_dir: Path, folder: Path) -> None:
    """Engines belong to one graph: without new ones they are removed with the old bundle."""
    for library in LIBRARIES:
        engine, _ = engine_paths(old_dir, library)
        if engine.exists() and not engine_paths(folder, library)[0].exists():
            logger.warning(
                "%s was built from the replaced graph and is removed; build a new one: python -m "
                "export.engine %s --library %s",
                engine.name,
                old_dir,
                library,
            )


def _write(folder: Path, reference: Reference) -> ExportResult:
    """Build the graph and write it with its parity report, card and manifest."""
    request, space = reference.request, reference.request.spec.output_space
    graph, cost = single_precision(request, reference.deploy), None
    if request.outputs.argmax == "coarse":
        cost = measure_argmax_cost(graph, with_full_labels(request), request.images, space)
    if request.precision != "fp32":  # or the searches would look for an error of the exporter
        report = reference.compare(GraphSession(graph))
        _require(report, "the fp32 graph", reference, graph)
    half = half_precision(graph, reference) if request.precision == "fp16" else None
    int8 = eight_bits(graph, reference) if request.precision == "int8" else None
    if int8:
        graph = int8.source
    converted = half or int8
    shipped = converted.graph if converted else graph
    chain = {**request.provenance, "graph_sha256": graph_sha256(graph)}
    if converted and converted.single:
        chain["single_precision"] = converted.single
    if int8 and int8.qat_steps:
        chain["qat_steps"] = int8.qat_steps
    _add_metadata(shipped, reference, chain)
    path = folder / MODEL_FILE
    onnx.save(shipped, path)
    parity, scores, golden = _check(folder, reference, converted or graph)
    if request.dynamic_batch:
        require_same_in_a_batch(GraphSession(shipped), request.images, parity.gate)
    result = ExportResult(
        num_nodes=len(shipped.graph.node),
        size_bytes=path.stat().st_size,
        parity=parity,
        single=converted.single if converted else (),
        rounding=half.parity if half else None,
        int8=int8_facts(int8, as_fp32(int8.source, request), request.images) if int8 else None,
        coarse_cost=cost,
        scores=scores,
    )
    _describe(folder, reference, {**chain, **result.record()}, golden=golden)
    return result


def _check(
    folder: Path, reference: Reference, made: Made
) -> tuple[ParityReport, BundleScores | None, GoldenFacts]:
    """Compare, score and draw with the written file, read as a device reads it.

    Args:
        folder: of the file.
        reference: what it is compared with.
        made: what was written.

    Raises:
        ParityError: it differs from the model.
    """
    request = reference.request
    with open_backend("onnxruntime", folder, _manifest(reference)) as backend:
        report, scores = reference.compare(backend.outputs), reference.scores(backend.infer)
        if scores is not None:
            report = replace(report, miou_change=scores.change)
        _require(report, f"the {request.precision} graph", reference, made)
        if request.pictures:
            _draw(folder / PICTURE_FILE, reference, backend.infer)
        golden = write_golden(
            folder,
            request.images if request.pictures else [drawn_frame(request.spec.input_hw)],
            label_map=backend.infer,
            min_agreement=request.thresholds.gate(request.precision).golden_agreement,
        )
    return report, scores, golden


def _draw(path: Path, reference: Reference, shipped: LabelMap) -> None:
    """Frames, with predictions before the adaptation and of the file."""
    request, before = reference.request, reference.before()
    columns = {"before the adaptation": before} if before else {}
    columns[f"this file, {request.precision}"] = shipped
    draw_card(path, request.images, request.spec.output_space, columns)


def _require(report: ParityReport, what: str, reference: Reference, made: Made) -> None:
    """The gate, which names the layer at fault.

    Raises:
        ParityError: something is below its threshold.
    """
    try:
        require(report, what)
    except ParityError as error:
        raise ParityError(f"{error}{_culprit(reference, made)}") from None


def _culprit(reference: Reference, made: Made) -> str:
    """The first layer that differs, or with which a conversion fails; empty when there is none."""
    if isinstance(made, onnx.ModelProto):
        layer = reference.first_diverging(made)
        return f"; the first layer that differs is {layer}" if layer else ""

    def compare(some: onnx.ModelProto) -> ParityReport:
        session = GraphSession(some)
        return reference.scored(reference.compare(session), session)

    layer = made.first_failing(compare)
    return f"; the first layer to fail it is {layer}. {ADVICE}" if layer else f". {ADVICE}"


def _describe(
    folder: Path, reference: Reference, provenance: dict[str, Any], *, golden: GoldenFacts
) -> None:
    """Card and manifest, which names and hashes the files."""
    request = reference.request
    picture = PICTURE_FILE if request.pictures else None
    card = model_card(
        request.spec,
        request.precision,
        outputs=request.outputs.names,
        batch="N" if request.dynamic_batch else "1",
        provenance=provenance,
        picture=picture,
    )
    (folder / CARD_FILE).write_text(card, encoding="utf-8", errors="backslashreplace")
    files = [MODEL_FILE, CARD_FILE, *([picture] if picture else [])]
    files += [golden.image_file, golden.labels_file]
    hashes = {name: file_sha256(folder / name) for name in files}
    manifest = replace(_manifest(reference), sha256=hashes, provenance=provenance, golden=golden)
    (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")


def _manifest(reference: Reference) -> Manifest:
    """What the device needs to know; the hashes come when the files are written."""
    request, health = reference.request, reference.deploy.health
    return Manifest(
        model_file=MODEL_FILE,
        sha256={},
        input_hw=request.spec.input_hw,
        label_space=request.spec.output_space,
        precision=request.precision,
        outputs=request.outputs.names,
        health_layout=dict(health.layout) if health is not None else {},
    )


def _add_metadata(graph: onnx.ModelProto, reference: Reference, chain: dict[str, Any]) -> None:
    """The facts that a lone .onnx file should carry, and a hash by which it can be checked."""
    facts = {
        **_manifest(reference).interface(),
        "provenance": json.dumps(chain),
        "content_sha256": graph_sha256(graph),
        "input": f"uint8 RGB ({'N' if reference.request.dynamic_batch else '1'}, H, W, 3)",
    }
    onnx.helper.set_model_props(graph, facts)
