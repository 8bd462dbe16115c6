"""sfda-edge adapt: a model and unlabeled images in, a run directory out."""

from __future__ import annotations

import importlib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from runtime.bundle.manifest import file_sha256
from sfda_edge.adaptation.loop import Adaptation, adapt, begin, checkpoint_path
from sfda_edge.adaptation.task import AdaptationTask
from sfda_edge.data import ImageSet, absolute_spec, open_images
from sfda_edge.data.target import TargetImages
from sfda_edge.data.validation import Validation
from sfda_edge.errors import SfdaEdgeError
from sfda_edge.evaluation.evaluate import Evaluation, Predictor, evaluate
from sfda_edge.methods import METHODS, RecipeModel, load_method_recipe, recipe_model
from sfda_edge.models.checkpoint import save_model
from sfda_edge.models.source_model import ModelFlags, SourceModel, describes_itself, load_source
from sfda_edge.recipes.recipe import recipe_toml
from sfda_edge.report.adaptation import adaptation_page, compare, scores_text
from sfda_edge.report.page import Section, write_page
from sfda_edge.report.tensorboard import with_tensorboard
from sfda_edge.runs.directory import ADAPTED_FILE, RunDirectory, default_run_dir
from sfda_edge.runs.metrics import read_metrics
from sfda_edge.runs.progress import progress_bar
from sfda_edge.selection.checkpoint_selection import Verdict
from sfda_edge.selection.test_time_ensemble import Teacher
from sfda_edge.training.distributed import rank
from sfda_edge.training.fabric import Precision, open_fabric

logger = logging.getLogger(__name__)
REPORT_FILE, WORK_DIR = "report.html", "work"
PACKAGED_IMAGES = "streetsynth:target"
DEFAULT_RECIPE = "default"


@dataclass(frozen=True)
class AdaptRequest:
    """What the user asked for.

    Attributes:
        flags: the model.
        method: a name in ``METHODS``; None for the recipe's.
        recipe: a recipe's name or file; None for the method's own, or the default.
        overrides: ``KEY=VALUE`` settings.
        images: the target images, as ``open_images`` takes them; None for the packaged ones.
        validation: labelled images to score before and after; nothing is learnt from them.
        out_dir: None for a new folder in ``runs/``.
        device: as ``choose_device`` takes it.
        precision: of the networks' arithmetic.
        compiled: run the network through ``torch.compile``.
        tensorboard: also write the log for TensorBoard.
        resume: go on with the run in ``out_dir``.
        skip_bad: leave damaged images out.
        arguments: the command line, which ``--resume`` repeats.
    """

    flags: ModelFlags
    method: str | None = None
    recipe: str | None = None
    overrides: tuple[str, ...] = ()
    images: str | None = None
    validation: Validation | None = None
    out_dir: Path | None = None
    device: str = "auto"
    precision: Precision = "fp32"
    compiled: bool = False
    tensorboard: bool = False
    resume: bool = False
    skip_bad: bool = False
    arguments: tuple[str, ...] = ()


def run(request: AdaptRequest) -> Path:
    """Adapt, and return the run directory.

    Raises:
        SfdaEdgeError: something that the user has to change.
    """
    recipe_name = request.recipe or request.method or DEFAULT_RECIPE
    method_name, recipe = load_method_recipe(recipe_name, request.method, request.overrides)
    flags = completed(request.flags, recipe_model(recipe_name))
    source = load_source(flags, "--weights FILE for another")
    fabric = open_fabric(request.device, request.precision)
    _say_defaults(request)
    say_other_model(source, recipe_model(recipe_name))
    out_dir = fabric.broadcast(request.out_dir or default_run_dir(method_name))
    logger.info("run: %s (--out DIR for another); device: %s (--device)", out_dir, fabric.device)
    validation = _looked_at(request, source)
    target = _read_target(request, source)
    inputs = _inputs(request, source, method_name, recipe)
    inputs |= {"device": str(fabric.device), "target_sha256": target.sha256}
    if rank() == 0:
        text = recipe_toml(recipe, method=method_name)
        directory = RunDirectory(out_dir, inputs, text, request.resume, request.arguments)
    fabric.barrier()
    work_dir = out_dir / WORK_DIR
    try:
        task = AdaptationTask(
            source.model, source.spec, target, fabric, recipe.seed, work_dir, progress_bar
        )
        adaptation = begin(task, METHODS[method_name][1], recipe)
    except (SfdaEdgeError, RuntimeError):  # the latter where memory runs out
        if rank() == 0 and not request.resume:
            shutil.rmtree(work_dir, ignore_errors=True)
            directory.abandon()
        raise
    if request.compiled:
        adaptation.method.compile()
    if request.resume and checkpoint_path(out_dir).exists():
        adaptation.resume(checkpoint_path(out_dir))
        logger.info("resumed: %d of %d steps", adaptation.next_step, adaptation.method.num_steps)
    bar = progress_bar(method_name, adaptation.method.num_steps, adaptation.next_step)
    if request.tensorboard and rank() == 0:
        bar = with_tensorboard(bar, out_dir / "tensorboard", adaptation.next_step)
    adapt(adaptation, out_dir, bar)
    illustrations = adaptation.method.illustrations()  # all processes: networks may share batches
    if rank() == 0:
        result = _leave(directory, adaptation, illustrations, validation, request.skip_bad)
        directory.finish(result)
        directory.make_latest()
        shutil.rmtree(work_dir, ignore_errors=True)  # pseudo-labels, for a resumed run alone
    fabric.barrier()
    return out_dir


def completed(flags: ModelFlags, said: RecipeModel) -> ModelFlags:
    """The flags, with what the recipe says of a model that does not say it itself."""
    if describes_itself(flags.weights):
        return flags
    return replace(
        flags,
        model=flags.model or said.name,
        label_space=flags.label_space or said.label_space,
        size_hw=flags.size_hw or said.input_hw,
    )


def say_other_model(source: SourceModel, said: RecipeModel) -> None:
    """Warn where a recipe was published for another network than the one that is adapted."""
    if said.name not in (None, source.spec.architecture):
        logger.warning(
            "the recipe is for %s, these weights are of %s", said.name, source.spec.architecture
        )


def _say_defaults(request: AdaptRequest) -> None:
    """Each default in a line with the flag that changes it."""
    if request.method is None and request.recipe is None:
        logger.info("method: our default (--method NAME, --recipe NAME|FILE, --set KEY=VALUE)")
    if request.images is None:
        logger.info("images: the packaged StreetSynth dusk frames (--images for yours)")


def _looked_at(request: AdaptRequest, source: SourceModel) -> ImageSet | None:
    """The validation images: finds out now what would otherwise fail after the run.

    Raises:
        DataError: they are not there, not labelled, damaged, or of other classes.
    """
    if request.tensorboard:
        importlib.import_module("tensorboard")
    if request.validation is None:
        return None
    bar = progress_bar("look at the validation images", None)
    return request.validation.opened_whole(source.spec.answer_space, request.skip_bad, bar)


def _read_target(request: AdaptRequest, source: SourceModel) -> TargetImages:
    images = open_images(request.images or PACKAGED_IMAGES)
    bar = progress_bar("read images", len(images))
    return TargetImages(images, source.spec.input_hw, request.skip_bad, bar)


def _inputs(request: AdaptRequest, source: SourceModel, method: str, recipe: Any) -> dict[str, Any]:
    height, width = source.spec.input_hw
    return {
        "method": method,
        "recipe": msgspec.to_builtins(recipe),
        "model": source.spec.architecture,
        "weights": str(source.path.resolve()),
        "weights_sha256": source.sha256,
        "spec": msgspec.to_builtins(source.spec),
        "size": f"{width}x{height}",
        "images": absolute_spec(request.images or PACKAGED_IMAGES),
        "precision": request.precision,
    }


def _leave(
    directory: RunDirectory,
    adaptation: Adaptation,
    illustrations: list[Section],
    validation: ImageSet | None,
    skip_bad: bool,
) -> dict[str, Any]:
    """Write what a finished run leaves; returns its result for ``run.json``."""
    task, guard = adaptation.task, adaptation.guard
    model, path = adaptation.method.model.eval(), directory.path / ADAPTED_FILE
    save_model(path, model, task.spec)
    before = Predictor(adaptation.original, task.spec, task.device)
    after = Predictor(model, task.spec, task.device)
    teacher = Teacher(task, adaptation.source, adaptation.views.kept)
    comparison = compare(task, before, after, teacher)
    scores = _scores(before, after, validation, skip_bad)
    lines = read_metrics(directory.path)
    outcome = outcome_text(adaptation) + refusal_text(adaptation, lines)
    logger.info(outcome)
    if scores is not None:
        logger.info(scores_text(scores))
    page = adaptation_page(
        outcome,
        directory.facts,
        lines,
        guard,
        adaptation.views,
        comparison,
        illustrations,
        task.spec.answer_space,
        scores,
    )
    write_page(directory.path / REPORT_FILE, page)
    return {
        "adapted_sha256": file_sha256(path),
        "num_images": len(task.target),
        "returned": "source" if guard.best_step is None else f"step {guard.best_step}",
        "stopped": adaptation.stopped or None,
        "batchnorm_health": msgspec.to_builtins(adaptation.health),
        "source": _recorded(guard.source),
        "best": _recorded(guard.best),
        "share_of_pixels_changed": round(comparison.share_changed, 4),
        "data_wait_s": round(adaptation.data_wait_s, 3),
        "validation": [evaluation.record() for evaluation in scores or ()],
    }


def _scores(
    before: Predictor, after: Predictor, images: ImageSet | None, skip_bad: bool
) -> tuple[Evaluation, Evaluation] | None:
    if images is None:
        return None
    bar = progress_bar("score", len(images))
    return evaluate(before, images, skip_bad, bar), evaluate(after, images, skip_bad, bar)


def outcome_text(adaptation: Adaptation) -> str:
    """What was returned, and why, in one or two sentences."""
    guard, steps = adaptation.guard, adaptation.method.num_steps
    healthy = adaptation.health is None or adaptation.health.usable
    source = "source model" if healthy else "source model with its BatchNorm statistics repaired"
    text = f"The run was stopped: {adaptation.stopped}. " if adaptation.stopped else ""
    if guard.best_step is None:
        return (
            f"{text}The {source} is returned{' unchanged' if healthy else ''}: nothing was found "
            f"to be better. Its label-free score is {guard.source.score:.3f}."
        )
    returned = f"the model of step {guard.best_step} of {steps}"
    if guard.best_step == 0:
        returned = (
            f"the model before the first of {steps} steps, which differs from the source in its "
            "BatchNorm statistics alone"
        )
    return (
        f"{text}Returned: {returned}; label-free score {guard.best.score:.3f}, {source} "
        f"{guard.source.score:.3f}."
    )


def refusal_text(adaptation: Adaptation, lines: Sequence[dict[str, Any]]) -> str:
    """Why a higher score than the returned model's was not good enough; empty if there is none."""
    guard = adaptation.guard
    higher = [line for line in lines if line.get("score", 0.0) > guard.best.score]
    if not higher:
        return ""
    highest = max(higher, key=lambda line: line["score"])
    pupil = adaptation.method.taught_by_views and highest["step"] > 0
    reason = guard.refusal(highest["score"], highest["accuracy"], pupil)
    if not reason:  # of a run that was resumed in other circumstances
        return ""
    return f" Step {highest['step']} scored {highest['score']:.3f} and was refused: {reason}."


def _recorded(verdict: Verdict) -> dict[str, Any]:
    return {
        "score": round(verdict.score, 4),
        "accuracy": round(verdict.accuracy, 4),
        "confidence": round(verdict.confidence, 4),
        "effective_classes": round(verdict.num_effective_classes, 2),
    }
