"""From a model and unlabeled images to a run directory: what adapt does, however it is called."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from torch import nn

from runtime.bundle.manifest import file_sha256
from sfda_edge.adaptation.begin import begin
from sfda_edge.adaptation.home import home_network
from sfda_edge.adaptation.loop import Adaptation, adapt, checkpoint_path
from sfda_edge.adaptation.measure import Measured, measure
from sfda_edge.adaptation.outcome import outcome_record, outcome_text, rejection_text
from sfda_edge.adaptation.prepare import Prepared, prepare
from sfda_edge.adaptation.request import AdaptRequest, Run
from sfda_edge.data import recorded_spec
from sfda_edge.methods import METHODS
from sfda_edge.models.checkpoint import save_model
from sfda_edge.models.loaded_model import LoadedModel
from sfda_edge.models.source_model import python_name
from sfda_edge.recipes.recipe import recipe_toml
from sfda_edge.report.adaptation import (
    ReportFacts,
    adaptation_page,
    forgetting_text,
    scores_text,
)
from sfda_edge.report.page import write_page
from sfda_edge.report.tensorboard import with_tensorboard
from sfda_edge.runs.directory import ADAPTED_FILE, HOME_FILE, RunDirectory, locked
from sfda_edge.runs.distributed import rank, wait_for_all
from sfda_edge.runs.files import write_text
from sfda_edge.runs.metrics import read_metrics
from sfda_edge.runs.progress import progress_bar
from sfda_edge.task import AdaptationTask

logger = logging.getLogger(__name__)
REPORT_FILE, WORK_DIR, HASHES_FILE = "report.html", "work", "target.sha256"


def run_adaptation(request: AdaptRequest) -> Run:
    """Adapt, and write the run directory.

    Raises:
        SfdaEdgeError: something that the user has to change.
    """
    prepared = prepare(request)
    with _directory(prepared) as directory:
        adaptation = _begun(prepared, directory)
        _train(prepared, adaptation)
        run = _finished(prepared, adaptation, directory)
        wait_for_all()
    return run


@contextlib.contextmanager
def _directory(prepared: Prepared) -> Iterator[RunDirectory | None]:
    """The run directory, locked; None in all processes but the first."""
    request, out_dir, target = prepared.request, prepared.out_dir, prepared.target
    with contextlib.ExitStack() as stack:
        directory = None
        if rank() == 0:
            is_new = stack.enter_context(locked(out_dir))
            directory = RunDirectory(
                out_dir,
                _inputs(prepared),
                recipe_toml(prepared.recipe, method=prepared.method),
                resume=request.resume,
                is_new=is_new,
                arguments=request.arguments,
            )
            write_text(out_dir / HASHES_FILE, target.hashes_text())
        prepared.fabric.barrier()
        yield directory


def _inputs(prepared: Prepared) -> dict[str, Any]:
    """What decides the result, for ``run.json``."""
    request, source = prepared.request, prepared.source
    height, width = source.spec.input_hw
    return {
        "method": prepared.method,
        "recipe": msgspec.to_builtins(prepared.recipe),
        "selection": msgspec.to_builtins(request.selection),
        "model": source.spec.architecture,
        "weights": str(source.path.resolve()) if source.path else python_name(source.network),
        "weights_sha256": source.sha256,
        "spec": msgspec.to_builtins(source.spec),
        "size": f"{width}x{height}",
        "images": recorded_spec(prepared.image_source),
        "windows": msgspec.to_builtins(request.windows),
        "precision": request.precision,
        "device": str(prepared.fabric.device),
        "target_sha256": prepared.target.sha256,
        **({"weights_key": source.weights_key} if source.weights_key else {}),
    }


def _begun(prepared: Prepared, directory: RunDirectory | None) -> Adaptation:
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
    except Exception:  # ours, of a full memory, or of a user's network
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


def _train(prepared: Prepared, adaptation: Adaptation) -> None:
    """All remaining steps, with a progress bar."""
    bar = progress_bar(prepared.method, adaptation.method.num_steps, adaptation.next_step)
    if prepared.request.tensorboard and rank() == 0:
        bar = with_tensorboard(bar, prepared.out_dir / "tensorboard", adaptation.next_step)
    adapt(adaptation, prepared.out_dir, bar)


def _finished(prepared: Prepared, adaptation: Adaptation, directory: RunDirectory | None) -> Run:
    """Write the weights; measure the adapted model; write result and report, in this order."""
    task, out_dir, path = adaptation.task, prepared.out_dir, prepared.out_dir / ADAPTED_FILE
    network, home = adaptation.method.model.eval(), home_network(adaptation)
    if directory is not None:
        _save_weights(out_dir, task, network, home)
    measured = measure(prepared, adaptation, home)
    clean = adaptation.original.cpu().eval()  # without the hooks that a method may have set
    clean.load_state_dict(network.state_dict())
    prepared.fabric.barrier()
    result = outcome_record(
        adaptation,
        sha256=file_sha256(path),
        home_sha256=None if home is None else file_sha256(out_dir / HOME_FILE),
        share_changed=measured.comparison.share_changed,
        scores=measured.scores,
        source_scores=measured.source_scores,
        home_score=measured.home_score,
    )
    report_path = None
    if directory is not None:
        directory.finish(result)
        directory.make_latest()
        shutil.rmtree(out_dir / WORK_DIR, ignore_errors=True)  # labels, for a resumed run
        report_path = _write_report(directory, adaptation, measured)
    return Run(
        path=out_dir,
        model=LoadedModel(
            network=clean, spec=task.spec, path=path, sha256=result["adapted_sha256"]
        ),
        home_model=None
        if home is None
        else LoadedModel(
            network=home.cpu(),
            spec=task.spec,
            path=out_dir / HOME_FILE,
            sha256=result["home_sha256"],
        ),
        images=prepared.images,
        windows=prepared.request.windows,
        selected_step=adaptation.selection.best_step,
        scores=measured.scores,
        source_scores=measured.source_scores,
        report_path=report_path,
        result=result,
    )


def _save_weights(
    out_dir: Path, task: AdaptationTask, network: nn.Module, home: nn.Module | None
) -> None:
    save_model(out_dir / ADAPTED_FILE, network, task.spec)
    (out_dir / HOME_FILE).unlink(missing_ok=True)  # of an attempt that was killed
    if home is not None:
        save_model(out_dir / HOME_FILE, home, task.spec)


def _write_report(
    directory: RunDirectory, adaptation: Adaptation, measured: Measured
) -> Path | None:
    """Log the outcome and write the page; a failure is a warning, since the run is complete."""
    logger.info(outcome_text(adaptation))
    if measured.scores is not None:
        logger.info(scores_text(measured.scores, adaptation.selection))
    if measured.source_scores is not None:
        logger.info(forgetting_text(measured.source_scores, measured.home_score))
    path = directory.path / REPORT_FILE
    try:
        lines = read_metrics(directory.path)
        rejection = rejection_text(adaptation, lines)
        if rejection:
            logger.info(rejection)
        page = adaptation_page(
            ReportFacts(
                outcome=" ".join(filter(None, (outcome_text(adaptation), rejection))),
                run=directory.facts,
                lines=lines,
                selection=adaptation.selection,
                views=adaptation.views,
                comparison=measured.comparison,
                illustrations=measured.illustrations,
                space=adaptation.task.spec.output_space,
                config=adaptation.task.selection,
                scores=measured.scores,
                source_scores=measured.source_scores,
                home_score=measured.home_score,
            )
        )
        write_page(path, page)
    except Exception as error:  # whatever drawing raises: weights and result are written already
        logger.warning("the report could not be written: %s: %s", type(error).__name__, error)
        return None
    return path
