"""The torch model's own outputs, which everything that is exported is compared with."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import onnx
import torch
from torch import nn

from export.errors import ExportError
from export.gate.layer_diff import first_diverging
from export.gate.parity import Candidate, compare
from export.gate.report import ParityReport
from export.gate.scores import BundleScores, LabelMap, miou
from export.graph.deploy import DeployModel
from export.request import ExportRequest
from sfda_edge.evaluation import Predictor
from sfda_edge.models.inference import main_output

# So many of the gate's images are enough to guide a search.
_QUICK_IMAGES = 2


class Reference:
    """A request's model, with its outputs for the gate's images.

    Attributes:
        request: what was asked for.
        deploy: everything from pixels to outputs, in torch.
    """

    def __init__(self, request: ExportRequest) -> None:
        self.request = request
        self.deploy = DeployModel(request.model, request.spec, request.outputs).eval()
        self._gate = request.thresholds.gate(request.precision)
        self._space = request.spec.output_space
        self._outputs = self._finite_outputs()

    def _finite_outputs(self) -> list[dict[str, np.ndarray]]:
        """Label maps do not show NaN: the network's own logits are checked.

        Raises:
            ExportError: they are not finite.
        """
        finite: list[bool] = []

        def note(_network: nn.Module, _inputs: object, output: object) -> None:
            finite.append(bool(main_output(output).isfinite().all()))

        hook = self.request.model.register_forward_hook(note)
        try:
            outputs = [self.outputs(image) for image in self.request.images]
        finally:
            hook.remove()
        if not all(finite):
            raise ExportError(
                f"the model itself returns NaN or infinite values for {finite.count(False)} of "
                f"{len(finite)} frames; its training diverged, choose other weights"
            )
        return outputs

    @torch.inference_mode()
    def outputs(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Image (H, W, 3) uint8 → the model's outputs by name, without the batch axis."""
        found = self.deploy(torch.from_numpy(image)[None])
        names = self.request.outputs.names
        return {name: output[0].numpy() for name, output in zip(names, found, strict=True)}

    def compare(self, candidate: Candidate) -> ParityReport:
        """The gate, on all of its images."""
        return self._compared(slice(None), candidate)

    def quick_report(self, candidate: Candidate) -> ParityReport:
        """The same on few of them."""
        few = slice(None, None, max(1, len(self._outputs) // _QUICK_IMAGES))
        return self._compared(few, candidate)

    def _compared(self, some: slice, candidate: Candidate) -> ParityReport:
        outputs, images = self._outputs[some], self.request.images[some]
        layout = self.deploy.health.layout if self.deploy.health is not None else None
        return compare(
            outputs,
            candidate,
            images,
            space=self._space,
            gate=self._gate,
            health_layout=layout,
        )

    def scores(self, candidate: LabelMap) -> BundleScores | None:
        """How candidates score on the labelled images; None where there are none."""
        labelled = self.request.validation
        if not labelled:
            return None
        shipped = miou(labelled, self._space, candidate)
        return BundleScores(len(labelled), *self._torch_miou, shipped)

    def scored(self, report: ParityReport, candidate: Candidate) -> ParityReport:
        """A candidate's report, with what it loses of mIoU where there are labels."""
        scores = self.scores(lambda image: candidate(image)["label_map"])
        return replace(report, miou_change=scores.change) if scores else report

    @cached_property
    def _torch_miou(self) -> tuple[float | None, float, float]:
        """Before the adaptation, after it, and with labels taken as asked for."""
        labelled, before = self.request.validation, self.before()
        model = asked = miou(labelled, self._space, self._labels_of(self.request.model))
        if self.request.outputs.argmax == "coarse":
            asked = miou(labelled, self._space, lambda image: self.outputs(image)["label_map"])
        return miou(labelled, self._space, before) if before else None, model, asked

    def before(self) -> LabelMap | None:
        """What labels an image as before the adaptation, where that network is at hand."""
        return None if self.request.before is None else self._labels_of(self.request.before)

    def _labels_of(self, network: nn.Module) -> LabelMap:
        return Predictor(network, self.request.spec, torch.device("cpu")).label_map

    def first_diverging(self, graph: onnx.ModelProto) -> str | None:
        """The first layer of a single-precision graph that computes something else."""
        image, network = self.request.images[0], self.request.model
        return first_diverging(graph, network, lambda: self.outputs(image), image)
