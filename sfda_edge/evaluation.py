"""Score a model on labelled images."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from runtime.bundle.labels import LabelSpace
from runtime.confusion import ConfusionMatrix, Scores
from runtime.images import resize_image
from sfda_edge.data.images import ImageSet
from sfda_edge.data.label_counts import require_classes
from sfda_edge.data.label_doubts import LabelDoubts
from sfda_edge.data.loading import LoadedImage, read_outcomes, require_usable
from sfda_edge.data.relabel import in_classes_of
from sfda_edge.errors import CheckpointError
from sfda_edge.models import ModelSpec
from sfda_edge.models.inference import (
    Normalise,
    class_matrix,
    enlarged,
    main_output,
    mapped_probabilities,
)
from sfda_edge.models.sliding_windows import SlidingWindows
from sfda_edge.runs.distributed import all_objects, local_share
from sfda_edge.runs.progress import Progress, silent

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model's score on a set of images.

    Attributes:
        label_space: the classes that were scored.
        confusion: counts of (label, prediction).
        num_images: number of images that were scored.
    """

    label_space: LabelSpace
    confusion: ConfusionMatrix
    num_images: int

    def __repr__(self) -> str:
        """For people: its mIoU, and of how many images."""
        return f"Evaluation(mIoU {100 * self.miou:.1f} % of {self.num_images} images)"

    @property
    def scores(self) -> Scores:
        """mIoU, IoU of each class, pixel accuracy, each in [0, 1]."""
        return self.confusion.scores()

    @property
    def ignored_share(self) -> float:
        """Share of all pixels whose label is ignored, in [0, 1]."""
        total = int(self.confusion.counts.sum()) + self.confusion.ignored
        return self.confusion.ignored / total if total else 1.0

    @property
    def miou(self) -> float:
        """Mean IoU over the classes, in [0, 1]."""
        return self.scores.miou

    def record(self) -> dict[str, Any]:
        """The scores as plain values for JSON; a class that never occurs has null."""
        scores = self.scores
        per_class = zip(self.label_space.names, scores.iou, strict=True)
        return {
            "miou": _rounded(scores.miou),
            "pixel_accuracy": _rounded(scores.pixel_accuracy),
            "iou": {name: _rounded(float(iou)) for name, iou in per_class},
            "num_images": self.num_images,
            "ignored_share": round(self.ignored_share, 6),
            "confusion": self.confusion.counts.tolist(),
        }

    def text(self) -> str:
        """The scores as a small table, percent."""
        scores = self.scores
        rows = zip(self.label_space.names, scores.iou, strict=True)
        lines = [f"{name:<16}{100 * iou:6.1f}" for name, iou in rows]
        lines.append(f"{'mIoU':<16}{100 * scores.miou:6.1f}")
        lines.append(f"{'pixel accuracy':<16}{100 * scores.pixel_accuracy:6.1f}")
        lines.append(f"{'ignored pixels':<16}{100 * self.ignored_share:6.1f}")
        occurs = self.confusion.counts.sum(1) > 0
        names = self.label_space.names
        if absent := [name for name, found in zip(names, occurs, strict=True) if not found]:
            lines.append(f"in no label map: {', '.join(absent)}")
        return "\n".join(lines)


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 6)


class Predictor:
    """A model that predicts label maps at each image's own size.

    Images are resized to the input size, or cut into windows of it; class probabilities are mapped
    to the output classes, resized bilinearly to the image, and the most likely class is taken.

    Args:
        model: the network.
        spec: what it expects and predicts.
        device: where it runs.
        allow_nonfinite: take predictions that are no finite numbers for some class, as of a source
            model whose damage is to be measured.
        windows: cut images into windows of the input size; None to resize them to it.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: ModelSpec,
        device: torch.device,
        *,
        allow_nonfinite: bool = False,
        windows: SlidingWindows | None = None,
    ) -> None:
        self._allow_nonfinite, self._windows = allow_nonfinite, windows
        self.model = model.to(device).eval()
        self.spec, self.device = spec, device
        self.normalise = Normalise(spec).to(device)
        matrix = class_matrix(spec)
        self.matrix = None if matrix is None else matrix.to(device)

    @torch.no_grad()
    def label_map(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB → (H, W) uint8.

        Raises:
            CheckpointError: the network's output is not finite.
        """
        if self._windows is None:
            probabilities = self._probabilities(resize_image(image, self.spec.input_hw))
        else:
            window_hw = self.spec.input_hw
            scaled_hw = self._windows.scaled_hw(image.shape[:2], window_hw)
            scaled = resize_image(image, scaled_hw)
            probabilities = self._windows.mean(self._probabilities, scaled, window_hw)
        full = functional.interpolate(
            probabilities[None], image.shape[:2], mode="bilinear", align_corners=False
        )
        # max().indices is several times as fast as argmax on the CPU.
        return full[0].max(0).indices.to(torch.uint8).cpu().numpy()

    def _probabilities(self, image: np.ndarray) -> torch.Tensor:
        """(h, w, 3) uint8 at the input size → (C, h, w), of the output classes."""
        small = torch.from_numpy(image).to(self.device)
        logits = main_output(self.model(self.normalise(small.permute(2, 0, 1)[None])))
        if not self._allow_nonfinite and not logits.isfinite().all():
            raise CheckpointError(
                f"{self.spec.architecture} predicts values that are no finite numbers; are its "
                "weights damaged?"
            )
        return mapped_probabilities(enlarged(logits, self.spec.input_hw), self.matrix)[0]


Observer = Callable[[LoadedImage, np.ndarray], None]


def observe_nothing(loaded: LoadedImage, label_map: np.ndarray) -> None:
    """No observer."""


def evaluate(
    predictor: Predictor,
    images: ImageSet,
    *,
    skip_bad: bool = False,
    progress: Progress = silent,
    observer: Observer = observe_nothing,
) -> Evaluation:
    """Count every labelled image in one confusion matrix, at the labels' own size.

    Of several processes each scores its share; all get the whole result.

    Args:
        predictor: the model.
        images: labelled.
        skip_bad: leave damaged samples out.
        progress: wraps the images.
        observer: is called with each image and its prediction.

    Raises:
        DataError: the images have no labels, or none of one of the model's classes, or are damaged;
            or the labels say nothing, as ``require_classes`` has it.
        CheckpointError: the network's output is not finite.
    """
    space = predictor.spec.output_space
    images = in_classes_of(images, space)
    confusion = ConfusionMatrix(space.num_classes, space.ignore_index)
    count, problems, doubts = 0, [], LabelDoubts(space.num_classes)
    share = replace(images, samples=tuple(local_share(images.samples)))
    for loaded in progress(read_outcomes(share.samples, space)):
        if isinstance(loaded, str):
            problems.append(loaded)
            continue
        label_map = predictor.label_map(loaded.image)
        confusion.update(loaded.label_map, label_map)
        doubts.update(loaded.label_map, label_map)
        observer(loaded, label_map)
        count += 1
    parts = all_objects((confusion.counts, confusion.ignored, count, problems))
    require_usable([text for *_, some in parts for text in some], len(images), skip_bad)
    confusion.counts = sum(counts for counts, *_ in parts)
    confusion.ignored = sum(ignored for _, ignored, *_ in parts)
    require_classes(space, confusion.counts.sum(1), confusion.ignored, images.title)
    if doubt := doubts.text(confusion):
        logger.warning("%s: %s", images.title, doubt)
    return Evaluation(space, confusion, sum(count for _, _, count, _ in parts))
