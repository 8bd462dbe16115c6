"""Write a bundle: graph, manifest and model card; whole, proved, or not at all."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from export.bisect import first_failing
from export.card import model_card
from export.coarse import CoarseCost, measure_coarse
from export.deploy import FULL_LABEL_MAP, Answers, DeployModel
from export.divergence import first_diverging
from export.errors import ParityError
from export.finetune import finetune
from export.folder import CARD_FILE, MODEL_FILE, PICTURE_FILE, replacing, require_replaceable
from export.onnx_graph import export_graph
from export.parity import Answering, ParityReport, compare, require
from export.picture import draw_card
from export.precision import HalfPrecision, emulate_half, to_half
from export.profiles import CPU, TargetProfile
from export.provenance import graph_sha256
from export.quantize import Int8Facts, Quantised, int8_facts, to_int8
from export.recipe import ExportRecipe
from export.scores import BundleScores, LabelMap, score
from export.session import GraphSession
from export.simplify import simplified
from runtime.backends import open_backend
from runtime.manifest import MANIFEST_FILE, Manifest, file_sha256
from sfda_edge.evaluate import Predictor
from sfda_edge.models import ModelSpec
from sfda_edge.progress import progress_bar

logger = logging.getLogger(__name__)
_GLANCED_AT = 4


@dataclass(frozen=True, eq=False)
class ExportRequest:
    """What to export.

    Attributes:
        model: on the CPU, in evaluation mode.
        spec: of the model.
        images: target frames for the gate, each (H, W, 3) uint8 at the input size.
        validation: labelled images, with their label maps (H, W) uint8; the finished graph is
            scored on them, no search sees them.
        calibration: further target frames, which int8 is calibrated on.
        precision: fp32, fp16 or int8.
        answers: what the graph shall answer.
        profile: where it will run.
        dynamic_batch: whether the graph takes any number of images at once.
        recipe: the gate.
        provenance: where the model came from, for the manifest and the card.
        before: the network before it was adapted, for the card.
    """

    model: nn.Module
    spec: ModelSpec
    images: Sequence[np.ndarray]
    validation: Sequence[tuple[np.ndarray, np.ndarray]] = ()
    calibration: Sequence[np.ndarray] = ()
    precision: str = "fp32"
    answers: Answers = FULL_LABEL_MAP
    profile: TargetProfile = CPU
    dynamic_batch: bool = False
    recipe: ExportRecipe = field(default_factory=ExportRecipe)
    provenance: dict[str, Any] = field(default_factory=dict)
    before: nn.Module | None = None


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Attributes:
        num_nodes: of the graph.
        size_bytes: of the ONNX file.
        parity: of the file in ONNX Runtime, against the torch model.
        single: nodes that stay in single precision on purpose, of an int8 graph those that
            multiply.
        rounding: the parity with every half value really rounded, as a GPU does.
        int8: how an int8 graph came about.
        coarse_cost: what coarse labels cost and gain.
        scores: on labelled images, where there are any.
    """

    num_nodes: int
    size_bytes: int
    parity: ParityReport
    single: tuple[str, ...] = ()
    rounding: ParityReport | None = None
    int8: Int8Facts | None = None
    coarse_cost: CoarseCost | None = None
    scores: BundleScores | None = None

    def lines(self) -> list[str]:
        """What was found, for people."""
        lines = [self.parity.line()]
        if self.rounding is not None:
            lines.append(f"rounded as a GPU rounds: {self.rounding.line()}")
            lines.append(f"{len(self.single)} nodes stay in single precision")
        if self.int8 is not None:
            lines += self.int8.lines()
        if self.coarse_cost is not None:
            lines.append(self.coarse_cost.line())
        if self.scores is not None:
            lines.append(self.scores.line())
        return lines

    def record(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        facts: dict[str, Any] = {"parity": self.parity.record()}
        if self.rounding is not None:
            facts["parity_rounded"] = self.rounding.record()
        if self.int8 is not None:
            facts["int8"] = self.int8.record()
        if self.single:
            facts["single_precision"] = self.single
        if self.coarse_cost is not None:
            facts["coarse_labels"] = self.coarse_cost.record()
        if self.scores is not None:
            facts["scores"] = self.scores.record()
        return facts


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
    require_replaceable(out_dir)
    export = _Export(request)
    with replacing(out_dir) as folder:
        return export.write(folder)


class _Export:
    """One export: the model's own answers first, then the graph, then the proof."""

    def __init__(self, request: ExportRequest) -> None:
        self.request, self.space = request, request.spec.answer_space
        self.gate = request.recipe.gate(request.precision)
        self.deploy = DeployModel(request.model, request.spec, request.answers).eval()
        self.references = [self._reference(image) for image in request.images]

    @torch.inference_mode()
    def _reference(self, image: np.ndarray) -> dict[str, np.ndarray]:
        answers = self.deploy(torch.from_numpy(image)[None])
        names = self.request.answers.names
        return {name: answer[0].numpy() for name, answer in zip(names, answers, strict=True)}

    def write(self, folder: Path) -> ExportResult:
        """Build the graph and write it with its proof, card and manifest."""
        request = self.request
        graph = self._single_precision()
        cost = (
            measure_coarse(graph, self._full(), request.images, self.space)
            if request.answers.argmax == "coarse"
            else None
        )
        half = self._half(graph) if request.precision == "fp16" else None
        int8 = self._int8(graph) if request.precision == "int8" else None
        if int8:
            graph = int8.source
        converted = half or int8
        shipped = converted.graph if converted else graph
        chain = {**request.provenance, "graph_sha256": graph_sha256(graph)}
        _add_metadata(shipped, request, chain)
        path = folder / MODEL_FILE
        onnx.save(shipped, path)
        parity, scores = self._prove(folder, graph)
        result = ExportResult(
            num_nodes=len(shipped.graph.node),
            size_bytes=path.stat().st_size,
            parity=parity,
            single=converted.single if converted else (),
            rounding=half.parity if half else None,
            int8=int8_facts(int8, request.images) if int8 else None,
            coarse_cost=cost,
            scores=scores,
        )
        self._describe(folder, {**chain, **result.record()})
        return result

    def _describe(self, folder: Path, provenance: dict[str, Any]) -> None:
        """Card and manifest, which names and hashes the files."""
        request = self.request
        outputs, batch = request.answers.names, "N" if request.dynamic_batch else "1"
        card = model_card(request.spec, request.precision, outputs, batch, provenance)
        (folder / CARD_FILE).write_text(card, encoding="utf-8", errors="backslashreplace")
        files = (MODEL_FILE, CARD_FILE, PICTURE_FILE)
        hashes = {name: file_sha256(folder / name) for name in files}
        manifest = replace(self._manifest(), sha256=hashes, provenance=provenance)
        (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")

    def _single_precision(self) -> onnx.ModelProto:
        return simplified(self._exported(self.deploy))

    def _exported(self, deploy: DeployModel) -> onnx.ModelProto:
        request = self.request
        height, width = request.spec.input_hw
        # torch.export takes a first axis of 1 for a constant.
        count = 2 if request.dynamic_batch else 1
        example = torch.zeros((count, height, width, 3), dtype=torch.uint8)
        names = deploy.answers.names
        return export_graph(deploy, example, names, request.profile, request.dynamic_batch)

    def _full(self) -> onnx.ModelProto:
        """The same graph with labels at full size, for comparison."""
        answers = replace(self.request.answers, argmax="full")
        full = DeployModel(self.request.model, self.request.spec, answers)
        return simplified(self._exported(full.eval()))

    def _compare(self, candidate: Answering) -> ParityReport:
        request = self.request
        return compare(self.references, candidate, request.images, self.space, self.gate)

    def _glance(self, candidate: Answering) -> ParityReport:
        """The same on few of the images."""
        few = slice(None, None, max(1, len(self.references) // _GLANCED_AT))
        images = self.request.images[few]
        return compare(self.references[few], candidate, images, self.space, self.gate)

    def _half(self, graph: onnx.ModelProto) -> HalfPrecision:
        """The half-precision graph that passes the gate.

        Raises:
            ParityError: none does; says which layer breaks it.
        """

        def rounded(single: Sequence[str]) -> ParityReport:
            return self._compare(GraphSession(emulate_half(graph, single)))

        def glanced(single: Sequence[str]) -> ParityReport:
            return self._glance(GraphSession(emulate_half(graph, single)))

        half = to_half(graph, self.request.images[:8], rounded, glanced)
        try:
            require(half.parity, "the fp16 graph, rounded as a GPU rounds,")
        except ParityError as error:
            every = [node.name for node in graph.graph.node]
            halved = [name for name in every if name not in set(half.single)]
            worst = first_failing(
                halved, lambda some: rounded([name for name in every if name not in set(some)])
            )
            raise ParityError(f"{error}; the first layer to fail it is {worst}") from None
        return half

    def _int8(self, graph: onnx.ModelProto) -> Quantised:
        """The int8 graph that passes the gate, of a fine-tuned network where it has to be.

        Raises:
            ParityError: none does; says which layer breaks it.
            ExportError: the frames are too few to calibrate on, or noise.
        """
        int8, steps = self._quantised(graph), self.request.recipe.int8_finetune_steps
        if steps and (loss := self._loss(int8)):
            logger.info("int8 loses too much (%s): fine-tuning for %d steps", loss, steps)
            learnt = replace(self._quantised(self._finetuned(steps)), finetune_steps=steps)
            if learnt.parity.label_agreement > int8.parity.label_agreement:
                int8 = learnt
        try:
            require(int8.parity, "the int8 graph")
        except ParityError as error:
            worst = int8.first_failing(lambda some: self._compare(GraphSession(some)))
            raise ParityError(f"{error}; the first layer to fail it is {worst}") from None
        return int8

    def _quantised(self, graph: onnx.ModelProto) -> Quantised:
        return to_int8(
            graph,
            self.request.calibration,
            lambda some: self._compare(GraphSession(some)),
            lambda some: self._glance(GraphSession(some)),
            int32_bias=self.request.profile.engine is None,
        )

    def _loss(self, int8: Quantised) -> str:
        """What the gate says against it, with labels where there are any; nothing if it passes."""
        report, labelled = int8.parity, self.request.validation
        if labelled:
            session = GraphSession(int8.graph)
            scores = score(
                labelled,
                self.space,
                None,
                self._model_labels,
                lambda image: session(image)["label_map"],
            )
            report = replace(report, miou_change=scores.change)
        return "; ".join(report.failures())

    def _finetuned(self, steps: int) -> onnx.ModelProto:
        """The graph, in single precision, of a network that has learnt to be quantised."""
        request = self.request

        def logits(network: nn.Module, frames: Tensor) -> Tensor:
            return network(self.deploy.normalise(frames.float().permute(0, 3, 1, 2)))

        bar = progress_bar("fine-tune", steps)
        network = finetune(request.model, request.calibration, logits, steps, bar)
        deploy = DeployModel(network, request.spec, request.answers).eval()
        return simplified(self._exported(deploy))

    def _prove(
        self, folder: Path, graph: onnx.ModelProto
    ) -> tuple[ParityReport, BundleScores | None]:
        """Compare, score and draw with the written file, read as a device reads it.

        Raises:
            ParityError: it does not answer as the model does; in single precision, says which layer
                is the first that does not.
        """
        request = self.request
        before = self._before()
        with open_backend("onnxruntime", folder, self._manifest()) as backend:
            report, scores = self._compare(backend.answers), None
            if request.validation:
                labelled, space = request.validation, self.space
                scores = score(labelled, space, before, self._model_labels, backend.infer)
                report = replace(report, miou_change=scores.change)
            try:
                require(report, f"the {request.precision} graph")
            except ParityError as error:
                culprit = self._culprit(graph) if request.precision == "fp32" else ""
                raise ParityError(f"{error}{culprit}") from None
            columns = {"before the adaptation": before} if before else {}
            columns[f"this file, {request.precision}"] = backend.infer
            draw_card(folder / PICTURE_FILE, request.images, self.space, columns)
        return report, scores

    def _culprit(self, graph: onnx.ModelProto) -> str:
        image, network = self.request.images[0], self.request.model
        layer = first_diverging(graph, network, lambda: self._reference(image), image)
        return f"; the first layer to compute something else is {layer}" if layer else ""

    def _model_labels(self, image: np.ndarray) -> np.ndarray:
        return self._reference(image)["label_map"]

    def _before(self) -> LabelMap | None:
        request = self.request
        if request.before is None:
            return None
        return Predictor(request.before, request.spec, torch.device("cpu")).label_map

    def _manifest(self) -> Manifest:
        """What the device is told; the hashes come when the files are written."""
        request, health = self.request, self.deploy.health
        return Manifest(
            model_file=MODEL_FILE,
            sha256={},
            input_hw=request.spec.input_hw,
            label_space=self.space,
            precision=request.precision,
            outputs=request.answers.names,
            health_layout=dict(health.layout) if health is not None else {},
        )


def _add_metadata(graph: onnx.ModelProto, request: ExportRequest, chain: dict[str, Any]) -> None:
    """The facts that a lone .onnx file should carry, and a hash by which it can be checked."""
    space = request.spec.answer_space
    facts = {
        "class_names": json.dumps(space.names),
        "palette": json.dumps(space.palette),
        "precision": request.precision,
        "provenance": json.dumps(chain),
        "content_sha256": graph_sha256(graph),
        "input": f"uint8 RGB ({'N' if request.dynamic_batch else '1'}, H, W, 3)",
        "output": ", ".join(request.answers.names),
    }
    onnx.helper.set_model_props(graph, facts)
