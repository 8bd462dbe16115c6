"""The torch model's own answers, which everything that is exported is held against."""

from __future__ import annotations

import numpy as np
import onnx
import torch

from export.deploy import DeployModel
from export.divergence import first_diverging
from export.parity import Answering, ParityReport, compare
from export.request import ExportRequest
from export.scores import BundleScores, LabelMap, score
from sfda_edge.evaluate import Predictor

# So many of the gate's images are enough to guide a search.
_GLANCED_AT = 4


class Reference:
    """A request's model, with its answers to the gate's images.

    Attributes:
        request: what was asked for.
        deploy: the whole way from pixels to answers, in torch.
    """

    def __init__(self, request: ExportRequest) -> None:
        self.request = request
        self.deploy = DeployModel(request.model, request.spec, request.answers).eval()
        self._gate = request.recipe.gate(request.precision)
        self._space = request.spec.answer_space
        self._answers = [self.answers(image) for image in request.images]

    @torch.inference_mode()
    def answers(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Image (H, W, 3) uint8 → the model's answers by name, without the batch axis."""
        found = self.deploy(torch.from_numpy(image)[None])
        names = self.request.answers.names
        return {name: answer[0].numpy() for name, answer in zip(names, found, strict=True)}

    def compare(self, candidate: Answering) -> ParityReport:
        """The gate, on all of its images."""
        images = self.request.images
        return compare(self._answers, candidate, images, self._space, self._gate)

    def glance(self, candidate: Answering) -> ParityReport:
        """The same on few of them."""
        few = slice(None, None, max(1, len(self._answers) // _GLANCED_AT))
        images = self.request.images[few]
        return compare(self._answers[few], candidate, images, self._space, self._gate)

    def scores(self, candidate: LabelMap) -> BundleScores | None:
        """MIoU on the labelled images; None where there are none."""
        labelled = self.request.validation
        if not labelled:
            return None
        return score(labelled, self._space, self.before(), self._label_map, candidate)

    def _label_map(self, image: np.ndarray) -> np.ndarray:
        return self.answers(image)["label_map"]

    def before(self) -> LabelMap | None:
        """What labels an image as before the adaptation, where that network is at hand."""
        request = self.request
        if request.before is None:
            return None
        return Predictor(request.before, request.spec, torch.device("cpu")).label_map

    def first_diverging(self, graph: onnx.ModelProto) -> str | None:
        """The first layer of a single-precision graph that computes something else."""
        image, network = self.request.images[0], self.request.model
        return first_diverging(graph, network, lambda: self.answers(image), image)
