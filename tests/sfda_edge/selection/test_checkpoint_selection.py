import pytest
import torch

from sfda_edge.adaptation.loop import adapt, begin, checkpoint_path
from sfda_edge.methods import METHODS, load_method_recipe
from sfda_edge.methods.bn import BatchNormRecipe, BatchNormStatistics
from sfda_edge.report.adaptation import _judgement_sections
from sfda_edge.runs.metrics import read_metrics
from sfda_edge.selection.checkpoint_selection import Guard, Verdict
from sfda_edge.selection.view_search import find_views


def test_probing_changes_nothing(make_task, tiny_model):
    task = make_task()
    Guard(task, find_views(task))
    for key, value in tiny_model.state_dict().items():
        assert torch.equal(task.model.state_dict()[key], value), key


@pytest.fixture
def guard(make_task):
    task = make_task()
    return Guard(task, find_views(task))


def test_the_score_is_a_loop_over_views_and_mirror(make_task):
    task = make_task()
    views = find_views(task)
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
    found = Guard(task, views).source
    assert found.score == pytest.approx(sum(ious) / 3, abs=1e-4)
    assert found.accuracy == pytest.approx(right, abs=1e-4)


def test_sure_answers_score_no_better_than_unsure_ones(guard, make_task):
    """Temperature changes no label, so entropy methods gain nothing by being sure."""
    model = make_task().model
    before = guard.judge(model)
    with torch.no_grad():
        for parameter in model[-1].parameters():
            parameter *= 4
    after = guard.judge(model)
    assert after.confidence > before.confidence
    assert after.score == pytest.approx(before.score, abs=0.02)


def verdict(score, shares=(0.4, 0.3, 0.3), confidence=0.8, accuracy=0.9):
    return Verdict(score, accuracy, shares, confidence)


def test_the_best_checkpoint_is_kept_and_given_back(guard, make_task, monkeypatch):
    model = make_task().model
    scores = iter([guard.source.score + 0.02, guard.source.score + 0.01])
    shares = guard.source.class_shares
    monkeypatch.setattr(guard, "judge", lambda _model: verdict(next(scores), shares, accuracy=1.0))
    with torch.no_grad():
        model[0].weight.fill_(2.0)
        guard.consider(model, 10)
        model[0].weight.fill_(3.0)
        guard.consider(model, 20)
    assert guard.best_step == 10
    guard.give_best(model)
    assert (model[0].weight == 2.0).all()


def test_when_nothing_is_better_the_source_is_returned(guard, make_task, tiny_model, monkeypatch):
    model = make_task().model
    source = guard.source
    monkeypatch.setattr(
        guard, "judge", lambda _m: verdict(source.score, source.class_shares, accuracy=1.0)
    )
    with torch.no_grad():
        model[0].weight.zero_()
    guard.consider(model, 5)
    assert guard.best_step is None
    guard.give_best(model)
    assert torch.equal(model[0].weight, tiny_model[0].weight)


def test_a_model_that_makes_classes_up_is_no_better(guard, make_task, monkeypatch):
    model = make_task().model
    errors = 1 - guard.source.accuracy
    found = iter([1 - 1.11 * errors, 1 - 1.09 * errors])
    shares = guard.source.class_shares
    monkeypatch.setattr(guard, "judge", lambda _m: verdict(0.99, shares, accuracy=next(found)))
    guard.consider(model, 5)
    assert guard.best_step is None
    guard.consider(model, 6)
    assert guard.best_step == 6


def test_a_pupil_of_the_judges_has_to_gain_more_than_by_heart(guard, make_task, monkeypatch):
    model = make_task().model
    source = guard.source
    gains = iter([1.05, 1.01, 1.05, 1.07])
    monkeypatch.setattr(
        guard,
        "judge",
        lambda _m: verdict(next(gains) * source.score, source.class_shares, accuracy=1.0),
    )
    guard.consider(model, 10, pupil=True)
    assert guard.best_step is None
    guard.consider(model, 20)
    assert guard.best_step == 20
    guard.consider(model, 30, pupil=True)
    assert guard.best_step == 20
    guard.consider(model, 40, pupil=True)
    assert guard.best_step == 40


@pytest.mark.parametrize(("name", "pupil"), [("default", True), ("tent", False)])
def test_only_what_the_views_have_taught_is_a_pupil(name, pupil, make_task, tmp_path, monkeypatch):
    _, recipe = load_method_recipe(name, None, ("steps=2", "batch_size=2"))
    run = begin(make_task(), METHODS[name][1], recipe)
    asked = []
    consider = run.guard.consider
    monkeypatch.setattr(run.guard, "consider", lambda *a: asked.append(a[1:]) or consider(*a))
    adapt(run, tmp_path)
    assert asked == [(0, False), (2, pupil)]


def test_one_class_everywhere_is_a_collapse(guard, make_task):
    model = make_task().model
    guard.source = guard.best = verdict(0.5)
    with torch.no_grad():
        model[3].weight.zero_()
        model[3].bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
    assert "collapsed to 1.0 effective classes" in guard.how_collapsed(guard.consider(model, 1))
    with torch.no_grad():
        model[3].bias.fill_(float("nan"))
    assert "no longer numbers" in guard.how_collapsed(guard.consider(model, 2))
    assert guard.best_step is None
    assert guard.how_collapsed(guard.source) == ""


def test_a_collapsing_run_stops_early_and_returns_the_best(
    make_task, tiny_model, tmp_path, monkeypatch
):
    class Destroyer(BatchNormStatistics):
        def step(self, images, indices, step):
            with torch.no_grad():
                self.model[3].weight.zero_()
                self.model[3].bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
            return {"loss": 0.0}

    run = begin(make_task(), Destroyer, BatchNormRecipe(num_images=160, batch_size=4))
    # An untrained network sees few classes to begin with.
    monkeypatch.setattr("sfda_edge.selection.checkpoint_selection.COLLAPSED_BELOW", 0.97)
    adapt(run, tmp_path)
    assert "collapsed" in run.stopped
    assert run.next_step == 10
    last = read_metrics(tmp_path)[-1]
    assert last["step"] == 10
    assert max(last["class_shares"]) == 1  # what it was stopped for is on record
    assert last["stopped"] == run.stopped
    assert torch.equal(run.method.model[3].weight, tiny_model[3].weight)


def test_one_of_two_classes_is_a_collapse_too(guard):
    guard.source = guard.best = verdict(0.5, (0.5, 0.5))
    assert "collapsed to 1.0" in guard.how_collapsed(verdict(0.4, (1.0, 0.0)))
    assert guard.how_collapsed(verdict(0.4, (0.8, 0.2))) == ""


def test_fewer_classes_than_a_source_imagines_are_no_collapse(guard, make_task, monkeypatch):
    """The source sees five classes where there is hardly more than road."""
    guard.source = guard.best = verdict(0.2, (0.3, 0.2, 0.2, 0.2, 0.1), accuracy=0.5)
    better = verdict(0.6, (0.88, 0.06, 0.06, 0.0, 0.0))
    monkeypatch.setattr(guard, "judge", lambda _model: better)
    guard.consider(make_task().model, 10)
    assert guard.best_step == 10
    assert guard.how_collapsed(better) == ""
    assert "collapsed" in guard.how_collapsed(verdict(0.59, better.class_shares))


def test_answers_that_are_no_numbers_are_on_record_as_json(make_task, tmp_path):
    class Breaker(BatchNormStatistics):
        def step(self, images, indices, step):
            with torch.no_grad():
                self.model[3].bias.fill_(float("nan"))
            return {"loss": 0.0}

    run = begin(make_task(), Breaker, BatchNormRecipe(num_images=160, batch_size=4))
    adapt(run, tmp_path)
    assert "no longer numbers" in run.stopped
    assert run.next_step == 10
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert read_metrics(tmp_path)[-1]["confidence"] is None
    saved = torch.load(checkpoint_path(tmp_path), weights_only=True)
    assert saved["next_step"] == 0  # the last one before the answers broke
    space = run.task.spec.answer_space
    assert all(s.picture for s in _judgement_sections(read_metrics(tmp_path), run.guard, space))


def test_a_run_that_preparing_has_broken_takes_no_step(make_task, tiny_model, tmp_path):
    class Broken(BatchNormStatistics):
        def prepare(self, views):
            with torch.no_grad():
                self.model[3].bias.fill_(float("nan"))

    run = begin(make_task(), Broken, BatchNormRecipe(num_images=160, batch_size=4))
    adapt(run, tmp_path)
    assert "no longer numbers" in run.stopped
    assert run.next_step == 0
    assert [line["stopped"] for line in read_metrics(tmp_path)] == [run.stopped]
    assert not checkpoint_path(tmp_path).exists()
    assert torch.equal(run.method.model[3].bias, tiny_model[3].bias)


def test_the_guards_memory_survives_a_restart(guard, make_task):
    other = Guard(make_task(), find_views(make_task()))
    other.best_step, other.best = 30, verdict(0.9)
    guard.restore(other.state())
    assert guard.best_step == 30
    assert guard.best == verdict(0.9)
