"""Find, without labels, the input sizes and BatchNorm statistics at which a network is accurate.

A network is often more accurate on a target at another resolution than the device can afford, or
with some of the target in its BatchNorm statistics; which, differs from target to target. Each
combination is a *view*. The expected score of a view takes a truth that is drawn half from the
view's own probabilities: a network that was not trained on the target is more confident where it is
accurate (average confidence estimates accuracy: Guillory et al., ICCV 2021). This holds only before
training, and not always; so the other half is

- of *sizes* the mean of all other views: accurate views agree with one another, inaccurate ones err
  in different places;
- of *shares* of the target's statistics what the view predicts for the mirror image: with too many
  of a small target's statistics a network is confident and wrong, but errs elsewhere when the image
  is mirrored. Other shares would not do: those in the middle agree best with all, and are often not
  the best.

The mean over classes fails on a target that shows little but road: views that find five classes
there have a higher expected mIoU than the one that finds road. So views whose expected *accuracy*
is clearly below another's are left out.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sfda_edge.batchnorm.layers import batchnorm_layers
from sfda_edge.errors import RunError
from sfda_edge.runs.distributed import averaged, local_share
from sfda_edge.selection.config import SelectionConfig
from sfda_edge.selection.expected_score import (
    ExpectedScore,
    expected_score,
    frequent_classes,
)
from sfda_edge.selection.test_time_ensemble import (
    SizeStatistics,
    TestTimeEnsemble,
    View,
    plain,
    view_sizes,
)
from sfda_edge.task import AdaptationTask

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, kw_only=True)
class SelectedViews:
    """The result of the search.

    Attributes:
        kept: the two views of the ensemble; the second is mirrored.
        by_share: expected score of each share of target statistics, at the input size.
        by_size: expected score of each size, at the best share.
        consensus: mean class probabilities of the kept views on the probe images, (N, C, h, w).
        probe: the probe images' indices; of several processes each has its share.
        statistics: of the target at each size.
    """

    kept: tuple[View, ...]
    by_share: dict[View, ExpectedScore]
    by_size: dict[View, ExpectedScore]
    consensus: Tensor
    probe: tuple[int, ...]
    statistics: SizeStatistics = field(default_factory=dict)

    def text(self) -> str:
        """The kept views in a line."""
        return ", ".join(
            f"{view.size_hw[1]}x{view.size_hw[0]}{' mirrored' * view.mirrored}, "
            f"{view.target_share:.1f} target statistics "
            f"(expected mIoU {self.by_size[plain(view)].miou:.2f})"
            for view in self.kept
        )


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

    def probabilities(self, view: View) -> Tensor:
        """Class probabilities of the images in a view, (N, C, h, w), in half precision."""
        task, count = self.task, self.task.selection.probe_batch_size
        ensemble = TestTimeEnsemble(task, task.model, [view], self.statistics)
        batches = [
            ensemble.probabilities(self.images[start : start + count], task.half_hw).half()
            for start in range(0, len(self.images), count)
        ]
        if not batches:  # more processes than probe images
            shape = (0, task.num_classes, *task.half_hw)
            return torch.empty(shape, dtype=torch.half, device=task.device)
        return torch.cat(batches)

    def probabilities_of(self, views: Sequence[View]) -> dict[View, Tensor]:
        """The same in several views.

        A view whose predictions are not finite, and a size that the network or the memory cannot
        take, in any process, is left out in all.
        """
        bar = self.task.bars("compare views", len(views))
        found = {}
        for view in bar(views):
            problem = ""
            try:
                found[view] = self.probabilities(view)
                if not found[view].isfinite().all():
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


def search_views(task: AdaptationTask, *, compare_sizes: bool = True) -> SelectedViews:
    """Compare shares of target statistics at the input size, then sizes with the best share.

    Args:
        task: before training: its model is the source.
        compare_sizes: other input sizes, too; larger ones take most of the time.

    Raises:
        RunError: the network's predictions are not finite at the input size.
    """
    config = task.selection
    probe = Probe(task, tuple(local_share(task.target.spread(config.probe_images))))
    shares = config.target_shares if batchnorm_layers(task.model) else (0.0,)
    at_input_size = [View(task.spec.input_hw, share) for share in shares]
    found = probe.probabilities_of(at_input_size)
    mirrored = probe.probabilities_of([replace(view, mirrored=True) for view in found])
    if not mirrored:
        raise RunError(
            "the source model's predictions on the target are NaN or infinite; check its weights, "
            "and try --precision fp32"
        )
    by_share = share_scores(found, mirrored, config)
    del mirrored  # as large as what was found; sizes are still to come
    best = ranked_views(by_share, config.share_accuracy_slack)[0]
    sizes = view_sizes(task, config.scales if compare_sizes else (1.0,))
    others = [View(hw, best.target_share) for hw in sizes if hw != best.size_hw]
    found = {best: found[best], **probe.probabilities_of(others)}
    by_size = size_scores(found, config)
    ranked = ranked_views(by_size, config.accuracy_slack)
    second = replace(_second_view(ranked, by_size, config), mirrored=True)
    together = torch.stack([found[ranked[0]], probe.probabilities(second)])
    return SelectedViews(
        kept=(ranked[0], second),
        by_share=by_share,
        by_size=by_size,
        consensus=together.float().mean(0),
        probe=probe.images,
        statistics=probe.statistics,
    )


def _second_view(
    ranked: Sequence[View], scores: dict[View, ExpectedScore], config: SelectionConfig
) -> View:
    """The next best view where it is nearly as good as the best, else the best again."""
    least = config.second_view_ratio * scores[ranked[0]].miou
    near = [view for view in ranked[1:] if scores[view].miou >= least]
    return near[0] if near else ranked[0]


def ranked_views(scores: dict[View, ExpectedScore], slack: float) -> list[View]:
    """Views whose expected accuracy is within ``slack`` of the best, best expected mIoU first."""
    least = max(score.accuracy for score in scores.values()) - slack
    fit = [view for view, score in scores.items() if score.accuracy >= least]
    return sorted(fit, key=lambda view: -scores[view].miou)


def size_scores(found: dict[View, Tensor], config: SelectionConfig) -> dict[View, ExpectedScore]:
    """The expected score of each view by its own probabilities and the others'.

    Args:
        found: class probabilities in each view, (N, C, h, w).
        config: what is too rare to count.
    """
    total, counted = _together(found, config)
    scores = {}
    for view, probabilities in found.items():
        own = probabilities.float()
        others = (total - own) / (len(found) - 1) if len(found) > 1 else own
        scores[view] = expected_score(own.max(1).indices, (own + others) / 2, counted)
    return scores


def share_scores(
    found: dict[View, Tensor], mirrored: dict[View, Tensor], config: SelectionConfig
) -> dict[View, ExpectedScore]:
    """The expected score of each view by its probabilities of the image and of its mirror image.

    Args:
        found: class probabilities in each view, (N, C, h, w).
        mirrored: the same of the mirror image, mirrored back; views without one get no score.
        config: what is too rare to count.
    """
    _, counted = _together(found, config)
    scores = {}
    for other, probabilities in mirrored.items():
        own = found[plain(other)]
        truth = (own.float() + probabilities.float()) / 2
        scores[plain(other)] = expected_score(own.max(1).indices, truth, counted)
    return scores


def _together(found: dict[View, Tensor], config: SelectionConfig) -> tuple[Tensor, Tensor]:
    """The sum of all views' probabilities, and the classes that count for each of them.

    Those that all views together predict, so that scores compare.
    """
    total = torch.zeros_like(next(iter(found.values())), dtype=torch.float32)
    for probabilities in found.values():
        total += probabilities
    return total, frequent_classes(total, config.rare_class_share)
