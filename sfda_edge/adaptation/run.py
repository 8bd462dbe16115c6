"""From a model and unlabeled images to a run directory: what adapt does, however it is called."""

from __future__ import annotations

import contextlib
import importlib
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
from lightning_fabric import Fabric

from runtime.bundle.manifest import file_sha256
from sfda_edge.adaptation.loop import Adaptation, adapt, begin, checkpoint_path
from sfda_edge.data import ImageSet, ImageSource, open_images, recorded_spec
from sfda_edge.data.target import TargetImages
from sfda_edge.data.validation import Validation
from sfda_edge.errors import SfdaEdgeError
from sfda_edge.evaluation import Evaluation, Predictor, evaluate
from sfda_edge.methods import METHODS, load_method_recipe
from sfda_edge.methods.illustrations import Illustration
from sfda_edge.models.checkpoint import save_model
from sfda_edge.models.source_model import LoadedModel, ModelRequest, describes_itself, load_source
from sfda_edge.recipes.published import RecipeModel, recipe_model
from sfda_edge.recipes.recipe import recipe_toml
from sfda_edge.report.adaptation import ReportFacts, adaptation_page, scores_text
from sfda_edge.report.comparison import Comparison, compare
from sfda_edge.report.page import write_page
from sfda_edge.report.tensorboard import with_tensorboard
from sfda_edge.runs.directory import ADAPTED_FILE, RunDirectory, default_run_dir, locked
from sfda_edge.runs.distributed import rank, wait_for_all
from sfda_edge.runs.fabric import Precision, open_fabric
from sfda_edge.runs.files import write_text
from sfda_edge.runs.metrics import read_metrics
from sfda_edge.runs.progress import progress_bar
from sfda_edge.selection.checkpoint_selection import CheckpointScore
from sfda_edge.selection.config import SelectionConfig
from sfda_edge.selection.test_time_ensemble import TestTimeEnsemble
from sfda_edge.task import AdaptationTask

logger = logging.getLogger(__name__)
REPORT_FILE, WORK_DIR, HASHES_FILE = "report.html", "work", "target.sha256"
PACKAGED_IMAGES = "streetsynth:target"


@dataclass(frozen=True, eq=False, kw_only=True)
class AdaptRequest:
    """What is to be adapted, to what, and how.

    Attributes:
        model: the source model, or which it is.
        images: the target images; None for the packaged ones.
        method: a name in ``METHODS``; None for the recipe's.
        recipe: a recipe's name or file; None for the method's own, or the default.
        overrides: ``KEY=VALUE`` settings.
        selection: constants of label-free selection.
        validation: labelled images to score before and after; they are not used for training.
        out_dir: None for a new folder in ``runs/``.
        device: as ``choose_device`` takes it.
        precision: compute precision of the networks.
        compiled: use ``torch.compile``.
        tensorboard: also write the log for TensorBoard.
        resume: continue the run in ``out_dir``.
        skip_bad: leave damaged images out.
        arguments: the command line, which ``--resume`` repeats.
    """

    model: ModelRequest | LoadedModel
    images: ImageSource | None = None
    method: str | None = None
    recipe: str | None = None
    overrides: tuple[str, ...] = ()
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    validation: Validation | None = None
    out_dir: Path | None = None
    device: str = "auto"
    precision: Precision = "fp32"
    compiled: bool = False
    tensorboard: bool = False
    resume: bool = False
    skip_bad: bool = False
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Run:
    """A finished adaptation.

    Attributes:
        path: the run directory.
        model: the adapted model.
        images: the target images.
        selected_step: the step of the model that was selected; None for the unchanged source.
        scores: on the validation images before and after; None without any.
        report_path: the page; None where it could not be written.
        result: what ``run.json`` holds of it.
    """

    path: Path
    model: LoadedModel
    images: ImageSet
    selected_step: int | None
    scores: tuple[Evaluation, Evaluation] | None
    report_path: Path | None
    result: dict[str, Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class _Prepared:
    """What a request has become before anything is written."""

    request: AdaptRequest
    method: str
    recipe: Any
    source: LoadedModel
    fabric: Fabric
    out_dir: Path
    images: ImageSet
    target: TargetImages
    validation: ImageSet | None


def run_adaptation(request: AdaptRequest) -> Run:
    """Adapt, and write the run directory.

    Raises:
        SfdaEdgeError: something that the user has to change.
    """
    prepared = _prepared(request)
    with _directory(prepared) as directory:
        adaptation = _begun(prepared, directory)
        _train(prepared, adaptation)
        run = _finished(prepared, adaptation, directory)
        wait_for_all()
    return run


def _prepared(request: AdaptRequest) -> _Prepared:
    """Read and check everything; nothing is written."""
    method, recipe = load_method_recipe(request.recipe, request.method, request.overrides)
    published = recipe_model(request.recipe or method)
    source = request.model
    if isinstance(source, ModelRequest):
        source = load_source(completed(source, published), "--weights FILE for another")
    fabric = open_fabric(request.device, request.precision)
    _log_defaults(request)
    warn_of_other_model(source, published)
    out_dir = fabric.broadcast(request.out_dir or default_run_dir(method))
    logger.info("run: %s (--out DIR for another); device: %s (--device)", out_dir, fabric.device)
    validation = _checked_validation(request, source)
    images = open_images(request.images or PACKAGED_IMAGES)
    bar = progress_bar("read images", len(images))
    return _Prepared(
        request=request,
        method=method,
        recipe=recipe,
        source=source,
        fabric=fabric,
        out_dir=out_dir,
        images=images,
        target=TargetImages(images, source.spec.input_hw, skip_bad=request.skip_bad, progress=bar),
        validation=validation,
    )


def completed(request: ModelRequest, published: RecipeModel) -> ModelRequest:
    """The request, with what the recipe says of a model that has no ``model.json``."""
    if describes_itself(request.weights) or request.network is not None:
        return request
    return replace(
        request,
        architecture=request.architecture or published.name,
        label_space=request.label_space or published.label_space,
        size_hw=request.size_hw or published.input_hw,
    )


def warn_of_other_model(source: LoadedModel, published: RecipeModel) -> None:
    """Warn where a recipe was published for another network than the one that is adapted."""
    if published.name not in (None, source.spec.architecture):
        logger.warning(
            "the recipe is for %s, these weights are of %s",
            published.name,
            source.spec.architecture,
        )


def _log_defaults(request: AdaptRequest) -> None:
    """Each default in a line with the flag that changes it."""
    if request.method is None and request.recipe is None:
        logger.info("method: multiview (--method NAME, --recipe NAME|FILE, --set KEY=VALUE)")
    if request.images is None:
        logger.info("images: the packaged StreetSynth dusk frames (--images for yours)")


def _checked_validation(request: AdaptRequest, source: LoadedModel) -> ImageSet | None:
    """The validation images: finds out now what would otherwise fail after the run.

    Raises:
        DataError: they are not there, not labelled, damaged, or of other classes.
    """
    if request.tensorboard:
        importlib.import_module("tensorboard")
    if request.validation is None:
        return None
    bar = progress_bar("check the validation images", None)
    return request.validation.open_checked(
        source.spec.output_space, skip_bad=request.skip_bad, progress=bar
    )


@contextlib.contextmanager
def _directory(prepared: _Prepared) -> Iterator[RunDirectory | None]:
    """The run directory, locked; None in all processes but the first."""
    request, out_dir, target = prepared.request, prepared.out_dir, prepared.target
    with contextlib.ExitStack() as stack:
        directory = None
        if rank() == 0:
            stack.enter_context(locked(out_dir))
            directory = RunDirectory(
                out_dir,
                _inputs(prepared),
                recipe_toml(prepared.recipe, method=prepared.method),
                resume=request.resume,
                arguments=request.arguments,
            )
            write_text(out_dir / HASHES_FILE, target.hashes_text())
        prepared.fabric.barrier()
        yield directory


def _inputs(prepared: _Prepared) -> dict[str, Any]:
    """What decides the result, for ``run.json``."""
    request, source = prepared.request, prepared.source
    height, width = source.spec.input_hw
    return {
        "method": prepared.method,
        "recipe": msgspec.to_builtins(prepared.recipe),
        "selection": msgspec.to_builtins(request.selection),
        "model": source.spec.architecture,
        "weights": str(source.path.resolve()) if source.path else source.spec.architecture,
        "weights_sha256": source.sha256,
        "spec": msgspec.to_builtins(source.spec),
        "size": f"{width}x{height}",
        "images": recorded_spec(request.images or PACKAGED_IMAGES),
        "precision": request.precision,
        "device": str(prepared.fabric.device),
        "target_sha256": prepared.target.sha256,
    }


def _begun(prepared: _Prepared, directory: RunDirectory | None) -> Adaptation:
    """The run before its first step, or where it was; leaves no directory if it cannot begin."""
    request, out_dir = prepared.request, prepared.out_dir
    try:
        task = AdaptationTask(
            prepared.source.network,
            prepared.source.spec,
            prepared.target,
            fabric=prepared.fabric,
            seed=prepared.recipe.seed,
            work_dir=out_dir / WORK_DIR,
            bars=progress_bar,
            selection=request.selection,
        )
        adaptation = begin(task, METHODS[prepared.method][1], prepared.recipe)
    except (SfdaEdgeError, RuntimeError):  # the latter where memory runs out
        if directory is not None and not request.resume:
            shutil.rmtree(out_dir / WORK_DIR, ignore_errors=True)
            (out_dir / HASHES_FILE).unlink(missing_ok=True)
            directory.abandon()
        raise
    if request.compiled:
        adaptation.method.compile()
    if request.resume and checkpoint_path(out_dir).exists():
        adaptation.resume(checkpoint_path(out_dir))
        logger.info("resumed: %d of %d steps", adaptation.next_step, adaptation.method.num_steps)
    return adaptation


def _train(prepared: _Prepared, adaptation: Adaptation) -> None:
    """All remaining steps, with a progress bar."""
    bar = progress_bar(prepared.method, adaptation.method.num_steps, adaptation.next_step)
    if prepared.request.tensorboard and rank() == 0:
        bar = with_tensorboard(bar, prepared.out_dir / "tensorboard", adaptation.next_step)
    adapt(adaptation, prepared.out_dir, bar)


def _finished(prepared: _Prepared, adaptation: Adaptation, directory: RunDirectory | None) -> Run:
    """Score the adapted model; write weights, result and report, in this order."""
    task, out_dir = adaptation.task, prepared.out_dir
    network = adaptation.method.model.eval()
    before = Predictor(adaptation.original, task.spec, task.device)
    after = Predictor(network, task.spec, task.device)
    path = out_dir / ADAPTED_FILE
    if directory is not None:
        save_model(path, network, task.spec)
    # All processes: each scores its share, and networks may share batches.
    scores = _scores(before, after, prepared)
    illustrations = adaptation.method.illustrations()
    ensemble = TestTimeEnsemble(task, adaptation.source, adaptation.views.kept)
    comparison = compare(task, before, after, ensemble)
    prepared.fabric.barrier()
    result = _result(adaptation, file_sha256(path), comparison.share_changed, scores)
    report_path = None
    if directory is not None:
        directory.finish(result)
        directory.make_latest()
        shutil.rmtree(out_dir / WORK_DIR, ignore_errors=True)  # labels, for a resumed run
        report_path = _write_report(
            directory, adaptation, comparison=comparison, illustrations=illustrations, scores=scores
        )
    return Run(
        path=out_dir,
        model=LoadedModel(
            network=network, spec=task.spec, path=path, sha256=result["adapted_sha256"]
        ),
        images=prepared.images,
        selected_step=adaptation.selection.best_step,
        scores=scores,
        report_path=report_path,
        result=result,
    )


def _scores(
    before: Predictor, after: Predictor, prepared: _Prepared
) -> tuple[Evaluation, Evaluation] | None:
    images, skip_bad = prepared.validation, prepared.request.skip_bad
    if images is None:
        return None
    bar = progress_bar("score", len(images))
    return (
        evaluate(before, images, skip_bad=skip_bad, progress=bar),
        evaluate(after, images, skip_bad=skip_bad, progress=bar),
    )


def _result(
    adaptation: Adaptation,
    sha256: str,
    share_changed: float,
    scores: tuple[Evaluation, Evaluation] | None,
) -> dict[str, Any]:
    """The result for ``run.json``."""
    selection = adaptation.selection
    step = selection.best_step
    return {
        "adapted_sha256": sha256,
        "num_images": len(adaptation.task.target),
        "returned": "source" if step is None else f"step {step}",
        "stopped": adaptation.stopped or None,
        "batchnorm_check": msgspec.to_builtins(adaptation.statistics_check),
        "source": _recorded(selection.source),
        "best": _recorded(selection.best),
        "share_of_pixels_changed": round(share_changed, 4),
        "data_wait_s": round(adaptation.data_wait_s, 3),
        "validation": [evaluation.record() for evaluation in scores or ()],
    }


def _recorded(found: CheckpointScore) -> dict[str, Any]:
    return {
        "score": round(found.score, 4),
        "accuracy": round(found.accuracy, 4),
        "confidence": round(found.confidence, 4),
        "effective_classes": round(found.num_effective_classes, 2),
    }


def _write_report(
    directory: RunDirectory,
    adaptation: Adaptation,
    *,
    comparison: Comparison,
    illustrations: list[Illustration],
    scores: tuple[Evaluation, Evaluation] | None,
) -> Path | None:
    """Write the page; a failure is a warning, since the run itself is complete."""
    lines = read_metrics(directory.path)
    outcome = outcome_text(adaptation) + rejection_text(adaptation, lines)
    logger.info(outcome)
    if scores is not None:
        logger.info(scores_text(scores))
    path = directory.path / REPORT_FILE
    try:
        page = adaptation_page(
            ReportFacts(
                outcome=outcome,
                run=directory.facts,
                lines=lines,
                selection=adaptation.selection,
                views=adaptation.views,
                comparison=comparison,
                illustrations=illustrations,
                space=adaptation.task.spec.output_space,
                config=adaptation.task.selection,
                scores=scores,
            )
        )
        write_page(path, page)
    except Exception as error:  # whatever drawing raises: weights and result are written already
        logger.warning("the report could not be written: %s: %s", type(error).__name__, error)
        return None
    return path


def outcome_text(adaptation: Adaptation) -> str:
    """Which model was selected, and why, in one or two sentences."""
    selection, steps = adaptation.selection, adaptation.method.num_steps
    usable = adaptation.statistics_check is None or adaptation.statistics_check.usable
    source = "source model" if usable else "source model with its BatchNorm statistics repaired"
    text = f"The run was stopped: {adaptation.stopped}. " if adaptation.stopped else ""
    if selection.best_step is None:
        return (
            f"{text}Selected: the {source}{', unchanged' if usable else ''}; no checkpoint was "
            f"better. Its label-free score is {selection.source.score:.3f}."
        )
    selected = f"step {selection.best_step} of {steps}"
    if selection.best_step == 0:
        selected = (
            f"the model before the first of {steps} steps, which differs from the source only in "
            "its BatchNorm statistics"
        )
    return (
        f"{text}Selected: {selected}; label-free score {selection.best.score:.3f}, {source} "
        f"{selection.source.score:.3f}."
    )


def rejection_text(adaptation: Adaptation, lines: Sequence[dict[str, Any]]) -> str:
    """Why a checkpoint with a higher score was rejected; empty if there is none."""
    selection = adaptation.selection
    higher = [line for line in lines if line.get("score", 0.0) > selection.best.score]
    if not higher:
        return ""
    highest = max(higher, key=lambda line: line["score"])
    student = adaptation.method.trains_on_ensemble and highest["step"] > 0
    reason = selection.rejection_reason(highest["score"], highest["accuracy"], student=student)
    if not reason:  # of a run that was resumed in other circumstances
        return ""
    return f" Step {highest['step']} scored {highest['score']:.3f} and was rejected: {reason}."
