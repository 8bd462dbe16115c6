"""Source and adapted model on a few target images, as arrays for the report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sfda_edge.evaluation import Predictor
from sfda_edge.selection.test_time_ensemble import TestTimeEnsemble
from sfda_edge.task import AdaptationTask

NUM_IMAGES = 4


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """Predictions for a few target images at the input size.

    Attributes:
        images: (N, H, W, 3) uint8 RGB.
        before, after: label maps of source and adapted model, (N, H, W) uint8.
        ensemble: label maps of the source's ensemble of views, (N, H, W) uint8.
        confidence: the ensemble's, (N, H, W) float in [0, 1].
    """

    images: np.ndarray
    before: np.ndarray
    after: np.ndarray
    ensemble: np.ndarray
    confidence: np.ndarray

    @property
    def share_changed(self) -> float:
        """Share of the pixels whose label changed."""
        return float((self.before != self.after).mean())


def compare(
    task: AdaptationTask, before: Predictor, after: Predictor, ensemble: TestTimeEnsemble
) -> Comparison:
    """Predict a few images, spread over the target."""
    indices = task.target.spread(NUM_IMAGES)
    images = [_picture(task, index) for index in indices]
    best = ensemble.probabilities(indices, task.spec.input_hw).max(1)
    return Comparison(
        images=np.stack(images),
        before=np.stack([before.label_map(image) for image in images]),
        after=np.stack([after.label_map(image) for image in images]),
        ensemble=best.indices.to(torch.uint8).cpu().numpy(),
        confidence=best.values.cpu().numpy(),
    )


def _picture(task: AdaptationTask, index: int) -> np.ndarray:
    image = task.target.images([index])[0]
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())
