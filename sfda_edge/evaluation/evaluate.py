"""Score a model on labelled images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from runtime.bundle.labels import LabelSpace
from runtime.confusion import ConfusionMatrix, Scores
from runtime.images import resize_image
from sfda_edge.data.images import ImageSet
from sfda_edge.data.loading import LoadedImage, Progress, read_all, silent
from sfda_edge.data.relabel import in_classes_of
from sfda_edge.models import ModelSpec
from sfda_edge.models.inference import Normalise, class_matrix, enlarged, mapped_probabilities


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model's score on a set of images.

    Attributes:
        label_space: the classes that were scored.
        confusion: counts of (label, prediction).
        num_images: how many images were counted.
    """

    label_space: LabelSpace
    confusion: ConfusionMatrix
    num_images: int

    @property
    def scores(self) -> Scores:
        """mIoU, IoU of each class, pixel accuracy."""
        return self.confusion.scores()

    def record(self) -> dict[str, Any]:
        """The scores as plain values for JSON; a class that is nowhere has null."""
        scores = self.scores
        per_class = zip(self.label_space.names, scores.iou, strict=True)
        return {
            "miou": _rounded(scores.miou),
            "pixel_accuracy": _rounded(scores.pixel_accuracy),
            "iou": {name: _rounded(float(iou)) for name, iou in per_class},
            "num_images": self.num_images,
            "confusion": self.confusion.counts.tolist(),
        }

    def text(self) -> str:
        """The scores as a small table, percent."""
        scores = self.scores
        rows = zip(self.label_space.names, scores.iou, strict=True)
        lines = [f"{name:<16}{100 * iou:6.1f}" for name, iou in rows]
        lines.append(f"{'mIoU':<16}{100 * scores.miou:6.1f}")
        lines.append(f"{'pixel accuracy':<16}{100 * scores.pixel_accuracy:6.1f}")
        return "\n".join(lines)


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 6)


class Predictor:
    """A model that answers with label maps at each image's own size.

    Images are resized to the input size; class probabilities are mapped to the classes asked for,
    resized bilinearly to the image and arg-maxed.
    """

    def __init__(self, model: nn.Module, spec: ModelSpec, device: torch.device) -> None:
        self.model = model.to(device).eval()
        self.spec, self.device = spec, device
        self.normalise = Normalise(spec).to(device)
        matrix = class_matrix(spec)
        self.matrix = None if matrix is None else matrix.to(device)

    @torch.no_grad()
    def label_map(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB → (H, W) uint8."""
        small = torch.from_numpy(resize_image(image, self.spec.input_hw)).to(self.device)
        logits = self.model(self.normalise(small.permute(2, 0, 1)[None]))
        probabilities = mapped_probabilities(enlarged(logits, self.spec.input_hw), self.matrix)
        full = functional.interpolate(
            probabilities, image.shape[:2], mode="bilinear", align_corners=False
        )
        # max().indices is several times as fast as argmax on the CPU.
        return full[0].max(0).indices.to(torch.uint8).cpu().numpy()


Watcher = Callable[[LoadedImage, np.ndarray], None]


def _watch_nothing(loaded: LoadedImage, label_map: np.ndarray) -> None:
    """The watcher of those who want the scores alone."""


def evaluate(
    predictor: Predictor,
    images: ImageSet,
    skip_bad: bool = False,
    progress: Progress = silent,
    watch: Watcher = _watch_nothing,
) -> Evaluation:
    """Count every labelled image in one confusion matrix, at the labels' own size.

    Args:
        predictor: the model.
        images: labelled.
        skip_bad: leave damaged samples out.
        progress: wraps the images.
        watch: is shown each image with its prediction, for pictures.

    Raises:
        DataError: the images have no labels, or none of one of the model's classes.
    """
    space = predictor.spec.answer_space
    images = in_classes_of(images, space)
    confusion = ConfusionMatrix(space.num_classes, space.ignore_index)
    count = 0
    for loaded in progress(read_all(images, space, skip_bad)):
        label_map = predictor.label_map(loaded.image)
        confusion.update(loaded.label_map, label_map)
        watch(loaded, label_map)
        count += 1
    return Evaluation(space, confusion, count)
