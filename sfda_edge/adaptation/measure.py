"""What an adapted model predicts beside its source: scores and pictures for the report."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from sfda_edge.adaptation.loop import Adaptation
from sfda_edge.adaptation.prepare import Prepared
from sfda_edge.data import ImageSet
from sfda_edge.evaluation import Evaluation, Predictor, evaluate
from sfda_edge.methods.illustrations import Illustration
from sfda_edge.models.sliding_windows import SlidingWindows
from sfda_edge.report.comparison import Comparison, compare
from sfda_edge.runs.progress import progress_bar
from sfda_edge.selection.test_time_ensemble import TestTimeEnsemble


@dataclass(frozen=True, eq=False, kw_only=True)
class Measured:
    """What the report shows of the adapted model beside the source.

    Attributes:
        scores: on the validation images before and after; None without any.
        source_scores: the same on those of the source domain.
        home_score: on those, of the network of ``HOME_FILE``, where there is one.
        illustrations: of the method's own parts.
        comparison: predictions before and after on a few target images.
    """

    scores: tuple[Evaluation, Evaluation] | None
    source_scores: tuple[Evaluation, Evaluation] | None
    home_score: Evaluation | None
    illustrations: list[Illustration]
    comparison: Comparison


def measure(prepared: Prepared, adaptation: Adaptation, home: nn.Module | None) -> Measured:
    """In all processes: each scores its share, and networks may share batches."""
    task, views, request = adaptation.task, adaptation.views, prepared.request
    before, after = _predictors(adaptation)
    in_windows = _predictors(adaptation, request.windows)
    scores = _scores(*in_windows, prepared.validation, skip_bad=request.skip_bad)
    source_scores = _scores(before, after, prepared.source_validation, skip_bad=request.skip_bad)
    home_score = _home_score(prepared, adaptation, home)
    illustrations = adaptation.method.illustrations()
    ensemble = TestTimeEnsemble(task, adaptation.source, views.kept, views.statistics)
    return Measured(
        scores=scores,
        source_scores=source_scores,
        home_score=home_score,
        illustrations=illustrations,
        comparison=compare(task, before, after, ensemble),
    )


def _predictors(
    adaptation: Adaptation, windows: SlidingWindows | None = None
) -> tuple[Predictor, Predictor]:
    """Of the source and of the adapted model."""
    task, adapted = adaptation.task, adaptation.method.model.eval()
    before = Predictor(
        adaptation.original, task.spec, task.device, allow_nonfinite=True, windows=windows
    )
    return before, Predictor(adapted, task.spec, task.device, windows=windows)


def _home_score(
    prepared: Prepared, adaptation: Adaptation, home: nn.Module | None
) -> Evaluation | None:
    images, task = prepared.source_validation, adaptation.task
    if images is None or home is None:
        return None
    predictor = Predictor(home, task.spec, task.device, allow_nonfinite=True)
    bar = progress_bar("score", len(images))
    return evaluate(predictor, images, skip_bad=prepared.request.skip_bad, progress=bar)


def _scores(
    before: Predictor, after: Predictor, images: ImageSet | None, *, skip_bad: bool
) -> tuple[Evaluation, Evaluation] | None:
    if images is None:
        return None
    bar = progress_bar("score", len(images))
    return (
        evaluate(before, images, skip_bad=skip_bad, progress=bar),
        evaluate(after, images, skip_bad=skip_bad, progress=bar),
    )
