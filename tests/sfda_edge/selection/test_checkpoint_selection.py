import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfda_edge.adaptation.begin import begin
from sfda_edge.adaptation.loop import adapt, checkpoint_path
from sfda_edge.methods import METHODS, load_method_recipe
from sfda_edge.methods.bn import BatchNormRecipe, BatchNormStatistics
from sfda_edge.report.adaptation import selection_sections
from sfda_edge.runs.metrics import read_metrics
from sfda_edge.runs.state import read_state
from sfda_edge.selection.checkpoint_selection import CheckpointScore, CheckpointSelection
from sfda_edge.selection.config import SelectionConfig
from sfda_edge.selection.view_search import search_views


def test_probing_changes_nothing(make_task, tiny_model):
    task = make_task()
    CheckpointSelection(task, search_views(task))
    for key, value in tiny_model.state_dict().items():
        assert torch.equal(task.model.state_dict()[key], value), key


@pytest.fixture
def selection(make_task):
    task = make_task()
    return CheckpointSelection(task, search_views(task))


def test_the_score_is_a_loop_over_views_and_mirror(make_task):
    task = make_task()
    views = search_views(task)
    with torch.no_grad():
        inputs = task.inputs(task.target.images(views.probe))
        plain = task.half_size(task.probabilities(task.model(inputs))).argmax(1)
        mirrored = task.half_size(task.probabilities(task.model(inputs.flip(3)))).flip(3).argmax(1)
    ious, right = [], 0.0
    for k in range(3):
        truth = (views.consensus[:, k] + (mirrored == k)) / 2
        answered = (plain == k).float()
        both = (truth * answered).sum()
        right += float(both) / plain.numel()
        ious.append(float(both / (truth.sum() + answered.sum() - both)))
    found = CheckpointSelection(task, views).source
    assert found.score == pytest.approx(sum(ious) / 3, abs=1e-4)
    assert found.accuracy == pytest.approx(right, abs=1e-4)


def test_sure_answers_score_no_better_than_unsure_ones(selection, make_task):
    """Temperature changes no label, so entropy methods gain nothing by being sure."""
    model = make_task().model
    before = selection.score(model)
    with torch.no_grad():
        for parameter in model[-1].parameters():
            parameter *= 4
    after = selection.score(model)
    assert after.confidence > before.confidence
    assert after.score == pytest.approx(before.score, abs=0.02)


def scored(score, shares=(0.4, 0.3, 0.3), confidence=0.8, accuracy=0.9):
    return CheckpointScore(score, accuracy, shares, confidence)


def test_the_best_checkpoint_is_kept_and_given_back(selection, make_task, monkeypatch):
    model = make_task().model
    scores = iter([selection.source.score + 0.02, selection.source.score + 0.01])
    shares = selection.source.class_shares
    monkeypatch.setattr(
        selection, "score", lambda _model: scored(next(scores), shares, accuracy=1.0)
    )
    with torch.no_grad():
        model[0].weight.fill_(2.0)
        selection.consider(model, 10)
        model[0].weight.fill_(3.0)
        selection.consider(model, 20)
    assert selection.best_step == 10
    selection.load_best(model)
    assert (model[0].weight == 2.0).all()


@pytest.mark.parametrize("changed", ["nothing", "weights", "statistics"])
def test_what_is_still_the_source_is_not_scored_again(changed, selection, make_task, monkeypatch):
    model, calls = make_task().model, []
    other = scored(selection.source.score + 0.01, selection.source.class_shares, accuracy=1.0)
    monkeypatch.setattr(selection, "score", lambda model: calls.append(model) or other)
    with torch.no_grad():
        if changed == "weights":
            model[0].weight[0, 0, 0, 0] += 1e-3
        if changed == "statistics":
            model[1].running_mean += 1e-3
    found = selection.consider(model, 0)
    assert len(calls) == (changed != "nothing")
    assert found == (selection.source if changed == "nothing" else other)
    assert selection.best_step == (None if changed == "nothing" else 0)


def test_a_step_0_that_was_kept_is_scored_as_itself_after_a_restart(make_task, monkeypatch):
    """Its weights are those that are kept then, as the source's are otherwise."""
    first, second = (CheckpointSelection(task, search_views(task)) for task in (make_task(),) * 2)
    model = make_task().model
    with torch.no_grad():
        model[1].running_mean += 1e-3
    kept = scored(first.source.score + 0.01, first.source.class_shares, accuracy=1.0)
    for selection in (first, second):
        monkeypatch.setattr(selection, "score", lambda _model: kept)
    first.consider(model, 0)
    assert first.best_step == 0
    second.restore(first.state())
    assert second.consider(model, 0) == kept


def test_when_nothing_is_better_the_source_is_returned(
    selection, make_task, tiny_model, monkeypatch
):
    model = make_task().model
    source = selection.source
    monkeypatch.setattr(
        selection, "score", lambda _m: scored(source.score, source.class_shares, accuracy=1.0)
    )
    with torch.no_grad():
        model[0].weight.zero_()
    selection.consider(model, 5)
    assert selection.best_step is None
    selection.load_best(model)
    assert torch.equal(model[0].weight, tiny_model[0].weight)


def test_a_model_that_makes_classes_up_is_no_better(selection, make_task, monkeypatch):
    model = make_task().model
    errors = 1 - selection.source.accuracy
    found = iter([1 - 1.06 * errors, 1 - 1.04 * errors])
    shares = selection.source.class_shares
    monkeypatch.setattr(selection, "score", lambda _m: scored(0.99, shares, accuracy=next(found)))
    selection.consider(model, 5)
    assert selection.best_step is None
    selection.consider(model, 6)
    assert selection.best_step == 6


def test_a_pupil_of_the_judges_has_to_gain_more_than_by_heart(selection, make_task, monkeypatch):
    model = make_task().model
    source = selection.source
    angle = 2 * math.asin(math.sqrt(source.score))  # Cohen's h is a difference of such angles
    assert math.sin((angle + 0.073) / 2) ** 2 == pytest.approx(selection.least_student_score)
    rises = iter([0.07, 0.01, 0.07, 0.08])
    monkeypatch.setattr(
        selection,
        "score",
        lambda _m: scored(
            math.sin((angle + next(rises)) / 2) ** 2, source.class_shares, accuracy=1.0
        ),
    )
    selection.consider(model, 10, student=True)
    assert selection.best_step is None
    selection.consider(model, 20)
    assert selection.best_step == 20
    selection.consider(model, 30, student=True)
    assert selection.best_step == 20
    selection.consider(model, 40, student=True)
    assert selection.best_step == 40


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_student_of_any_source_can_be_accepted(low, high):
    """A share of the score asked more than 1 of a source above 0.943."""
    selection = CheckpointSelection.__new__(CheckpointSelection)
    selection._config = SelectionConfig()
    least = []
    for score in sorted((low, high)):
        selection.source = scored(score)
        least.append(selection.least_student_score)
        assert score <= least[-1] <= 1
        assert least[-1] < 1 or score > 0.998
    assert least == sorted(least)


@pytest.mark.parametrize(("keep", "kept"), [("last", 20), ("source", None), ("best", 10)])
def test_a_user_may_overrule_the_selection(keep, kept, selection, make_task, monkeypatch):
    model = make_task().model
    selection._config = replace(selection._config, keep=keep)
    source = selection.source
    scores = iter([source.score + 0.1, source.score - 0.1, source.score - 0.1])
    last = iter([0.5, 0.5, float("nan")])
    monkeypatch.setattr(
        selection,
        "score",
        lambda _m: replace(source, score=next(scores), confidence=next(last)),
    )
    for step in (10, 20, 30):  # the last predicts nothing: not even --keep last takes it
        found = selection.consider(model, step)
    assert selection.best_step == kept
    assert "no longer finite" in selection.collapse_reason(found)


@pytest.mark.parametrize(("name", "student"), [("multiview", True), ("tent", False)])
def test_only_students_of_the_ensemble_count_as_such(
    name, student, make_task, tmp_path, monkeypatch
):
    _, recipe = load_method_recipe(name, None, ("steps=2", "batch_size=2"))
    run = begin(make_task(), METHODS[name][1], recipe)
    asked = []
    consider = run.selection.consider

    def record(model, step, *, student):
        asked.append((step, student))
        return consider(model, step, student=student)

    monkeypatch.setattr(run.selection, "consider", record)
    adapt(run, tmp_path)
    assert asked == [(0, False), (2, student)]


def test_one_class_everywhere_is_a_collapse(selection, make_task):
    model = make_task().model
    selection.source = selection.best = scored(0.5)
    with torch.no_grad():
        model[3].weight.zero_()
        model[3].bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
    assert "collapsed to 1.0 effective classes" in selection.collapse_reason(
        selection.consider(model, 1)
    )
    with torch.no_grad():
        model[3].bias.fill_(float("nan"))
    assert "no longer finite" in selection.collapse_reason(selection.consider(model, 2))
    assert selection.best_step is None
    assert selection.collapse_reason(selection.source) == ""


def test_a_collapsing_run_stops_early_and_returns_the_best(make_task, tiny_model, tmp_path):
    class Destroyer(BatchNormStatistics):
        def step(self, images, indices, step):
            with torch.no_grad():
                self.model[3].weight.zero_()
                self.model[3].bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
            return {"loss": 0.0}

    run = begin(make_task(), Destroyer, BatchNormRecipe(num_images=160, batch_size=4))
    # An untrained network predicts few classes to begin with.
    run.selection._config = replace(run.selection._config, min_diversity=0.97)
    adapt(run, tmp_path)
    assert "collapsed" in run.stopped
    assert run.next_step == 10
    last = read_metrics(tmp_path)[-1]
    assert last["step"] == 10
    assert max(last["class_shares"]) == 1  # what it was stopped for is on record
    assert last["stopped"] == run.stopped
    assert torch.equal(run.method.model[3].weight, tiny_model[3].weight)


def test_one_of_two_classes_is_a_collapse_too(selection):
    selection.source = selection.best = scored(0.5, (0.5, 0.5))
    assert "collapsed to 1.0" in selection.collapse_reason(scored(0.4, (1.0, 0.0)))
    assert selection.collapse_reason(scored(0.4, (0.8, 0.2))) == ""


def test_fewer_classes_than_a_source_imagines_are_no_collapse(selection, make_task, monkeypatch):
    """The source sees five classes where there is hardly more than road."""
    selection.source = selection.best = scored(0.2, (0.3, 0.2, 0.2, 0.2, 0.1), accuracy=0.5)
    better = scored(0.6, (0.88, 0.06, 0.06, 0.0, 0.0))
    monkeypatch.setattr(selection, "score", lambda _model: better)
    selection.consider(make_task().model, 10)
    assert selection.best_step == 10
    assert selection.collapse_reason(better) == ""
    assert "collapsed" in selection.collapse_reason(scored(0.59, better.class_shares))


def test_answers_that_are_no_numbers_are_on_record_as_json(make_task, tmp_path):
    class Breaker(BatchNormStatistics):
        def step(self, images, indices, step):
            with torch.no_grad():
                self.model[3].bias.fill_(float("nan"))
            return {"loss": 0.0}

    run = begin(make_task(), Breaker, BatchNormRecipe(num_images=160, batch_size=4))
    adapt(run, tmp_path)
    assert "no longer finite" in run.stopped
    assert run.next_step == 10
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert read_metrics(tmp_path)[-1]["confidence"] is None
    saved = read_state(checkpoint_path(tmp_path))
    assert saved["next_step"] == 0  # the last one before the answers broke
    facts = SimpleNamespace(
        lines=read_metrics(tmp_path),
        selection=run.selection,
        space=run.task.spec.output_space,
        config=run.task.selection,
    )
    assert all(section.picture for section in selection_sections(facts))


def test_a_run_that_preparing_has_broken_takes_no_step(make_task, tiny_model, tmp_path):
    class Broken(BatchNormStatistics):
        def prepare(self, views):
            with torch.no_grad():
                self.model[3].bias.fill_(float("nan"))

    run = begin(make_task(), Broken, BatchNormRecipe(num_images=160, batch_size=4))
    adapt(run, tmp_path)
    assert "no longer finite" in run.stopped
    assert run.next_step == 0
    assert [line["stopped"] for line in read_metrics(tmp_path)] == [run.stopped]
    assert not checkpoint_path(tmp_path).exists()
    assert torch.equal(run.method.model[3].bias, tiny_model[3].bias)


def test_the_guards_memory_survives_a_restart(selection, make_task):
    other = CheckpointSelection(make_task(), search_views(make_task()))
    other.best_step, other.best = 30, scored(0.9)
    selection.restore(other.state())
    assert selection.best_step == 30
    assert selection.best == scored(0.9)
