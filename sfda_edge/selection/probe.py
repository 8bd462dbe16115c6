"""Probe: what a network predicts for some of the target images and their mirror images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from sfda_edge.runs.distributed import averaged
from sfda_edge.selection.config import SelectionConfig
from sfda_edge.selection.expected_score import ExpectedScore, frequent_classes
from sfda_edge.selection.test_time_ensemble import SizeStatistics, TestTimeEnsemble, View
from sfda_edge.task import AdaptationTask

logger = logging.getLogger(__name__)


class Predictions(NamedTuple):
    """Class probabilities in a view, each (N, C, h, w).

    Attributes:
        plain: of the images.
        mirrored: of their mirror images, mirrored back.
    """

    plain: Tensor
    mirrored: Tensor

    @property
    def labels(self) -> Tensor:
        """The most likely classes of the images, (N, h, w)."""
        return self.plain.float().max(1).indices


@dataclass(frozen=True, eq=False)
class Probe:
    """Some of the target images, and the source model's statistics on the target at each size.

    Attributes:
        task: before training: its model is the source.
        images: indices; of several processes each has its share.
        statistics: as far as they have been observed.
    """

    task: AdaptationTask
    images: tuple[int, ...]
    statistics: SizeStatistics = field(default_factory=dict)

    def of(self, images: tuple[int, ...]) -> Probe:
        """The same of other images."""
        return replace(self, images=images)

    def in_view(self, view: View) -> Predictions:
        """Class probabilities of the images in a view, in half precision."""
        task, count = self.task, self.task.selection.probe_batch_size
        both = [view, replace(view, mirrored=True)]
        ensemble = TestTimeEnsemble(task, task.model, both, self.statistics)
        shape = (0, task.num_classes, *task.half_hw)  # of no images: more processes than images
        none = torch.empty(shape, dtype=torch.half, device=task.device)
        batches = [[none, none]] + [
            [part.half() for part in ensemble.of_each_view(images, task.half_hw)]
            for images in (self.images[i : i + count] for i in range(0, len(self.images), count))
        ]
        return Predictions(*map(torch.cat, zip(*batches, strict=True)))

    def predictions(self, views: Sequence[View]) -> dict[View, Predictions]:
        """Class probabilities in several views, each plain and mirrored.

        A view whose predictions are not finite, and a size that the network or the memory cannot
        take, in any process, is left out in all.
        """
        bar = self.task.bars("compare views", len(views))
        found = {}
        for view in bar(views):
            problem = ""
            try:
                found[view] = self.in_view(view)
                if not all(part.isfinite().all() for part in found[view]):
                    problem = "the predictions are NaN or infinite"
            except Exception as error:  # of a user's network; they have no common base
                if view.size_hw == self.task.spec.input_hw:
                    raise
                problem = str(error).partition("\n")[0] or type(error).__name__
            if averaged({"failed": float(bool(problem))})["failed"]:
                found.pop(view, None)
                height, width = view.size_hw
                logger.warning(
                    "view %dx%d with %.1f target statistics is left out: %s",
                    width,
                    height,
                    view.target_share,
                    problem or "another process failed",
                )
        return found


def ranked_views(scores: dict[View, ExpectedScore], slack: float) -> list[View]:
    """Views whose expected accuracy is within ``slack`` of the best, best expected mIoU first."""
    least = max(score.accuracy for score in scores.values()) - slack
    fit = [view for view, score in scores.items() if score.accuracy >= least]
    return sorted(fit, key=lambda view: -scores[view].miou)


def summed_views(found: dict[View, Predictions], config: SelectionConfig) -> tuple[Tensor, Tensor]:
    """The sum of all views' probabilities, and the classes that count for each of them.

    Those that all views together predict, so that scores compare.
    """
    total = torch.zeros_like(next(iter(found.values())).plain, dtype=torch.float32)
    for seen in found.values():
        total += seen.plain
    return total, frequent_classes(total, config.rare_class_share)
