"""Everything before the first step of an adaptation."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from sfda_edge.adaptation.loop import Adaptation, logger
from sfda_edge.batchnorm.layers import batchnorm_layers
from sfda_edge.errors import RecipeError
from sfda_edge.methods.base import AdaptationMethod
from sfda_edge.models.inference import main_output
from sfda_edge.runs.distributed import averaged, num_processes
from sfda_edge.selection.checkpoint_selection import CheckpointSelection
from sfda_edge.selection.statistics_check import StatisticsCheck, check_statistics
from sfda_edge.selection.test_time_ensemble import SizeStatistics
from sfda_edge.selection.view_search import search_views
from sfda_edge.task import AdaptationTask


def begin(task: AdaptationTask, method_type: type[AdaptationMethod], recipe: Any) -> Adaptation:
    """Everything before the first step.

    BatchNorm statistics are checked and repaired, views selected, the source model scored, the
    method prepared.

    Raises:
        RecipeError: too few images, a batch that processes cannot share, or a method that does not
            fit the network.
    """
    require_enough_images(task)
    original = copy.deepcopy(task.model)
    check, statistics = repair_statistics(task)
    method = method_type(task, recipe)  # after the repair: methods copy the source model
    require_shareable(method)
    source = copy.deepcopy(task.model)
    views = search_views(task, compare_sizes=method.compares_sizes, statistics=statistics)
    logger.info("views: %s", views.text())
    selection = CheckpointSelection(task, views)
    method.prepare(views)
    return Adaptation(
        task,
        method,
        original=original,
        source=source,
        statistics_check=check,
        views=views,
        selection=selection,
    )


def require_shareable(method: AdaptationMethod) -> None:
    """Check that every process has its part of a batch.

    Raises:
        RecipeError: the batch cannot be divided.
    """
    if method.batch_size % num_processes():
        raise RecipeError(
            f"batch_size {method.batch_size} cannot be shared by {num_processes()} "
            "processes; make it a multiple"
        )


def require_enough_images(task: AdaptationTask) -> None:
    """Check that there is something to adapt to.

    Raises:
        RecipeError: there are too few images.
    """
    if len(task.target) < max(2, num_processes()):
        raise RecipeError(
            f"{len(task.target)} target images are too few: at least 2, and one for each process, "
            "are needed"
        )


def repair_statistics(task: AdaptationTask) -> tuple[StatisticsCheck | None, SizeStatistics]:
    """Re-estimate unusable BatchNorm statistics on the target, with a warning.

    Returns:
        the result of the check, and the statistics at the input size; None and nothing for a
        network without BatchNorm.
    """
    if not batchnorm_layers(task.model):
        return None, {}
    config = task.selection
    indices = task.even_batches(config.probe_images, config.probe_batch_size)
    batches = [task.inputs(task.target.images(batch)) for batch in indices]
    found, statistics = check_statistics(
        task.model,
        batches,
        lambda output: task.probabilities(main_output(output).float()),
        config,
    )
    # All processes repair, or none: on two devices the last digits of the figures may differ.
    if averaged({"usable": float(found.usable)})["usable"] < 1:
        found = replace(found, usable=False)
    if not found.usable:
        logger.warning(
            "the checkpoint's BatchNorm statistics are unusable on the target: %.1f effective "
            "classes are predicted with them, %.1f with each batch's own; the target's means are "
            "%.1f stored deviations away, its variances differ by a factor of %.1f. The statistics "
            "are re-estimated on the target images",
            found.classes_stored,
            found.classes_batch,
            found.shift,
            found.variance_factor,
        )
        statistics.mix_into(task.model, 1.0)
    return found, {task.spec.input_hw: statistics}
