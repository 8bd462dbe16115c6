import dataclasses
import json
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sfda_edge.adaptation.begin import begin
from sfda_edge.adaptation.loop import _steps, adapt, checkpoint_path, observe_nothing
from sfda_edge.adaptation.outcome import outcome_text, rejection_text
from sfda_edge.errors import RunError
from sfda_edge.methods import METHODS, load_method_recipe
from sfda_edge.methods.bn import BatchNormRecipe, BatchNormStatistics
from sfda_edge.report.tensorboard import with_tensorboard
from sfda_edge.runs.metrics import open_metrics, read_metrics
from sfda_edge.runs.progress import silent
from sfda_edge.runs.state import save_state


def test_each_step_is_logged_and_every_tenth_judged(tmp_path, make_task):
    recipe = BatchNormRecipe(num_images=48, batch_size=4)
    adapt(begin(make_task(), BatchNormStatistics, recipe), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(13))
    assert all(line["shift"] > 0 for line in lines[1:])
    judged = [line for line in lines if "score" in line]
    assert [line["step"] for line in judged] == [0, 10, 12]
    assert all(sum(line["class_shares"]) == pytest.approx(1, abs=1e-3) for line in judged)


@pytest.mark.parametrize(
    ("best_step", "said"),
    [
        (None, "Selected: the source model, unchanged; no checkpoint was better. Its"),
        (0, "Selected: the model before the first of 6 steps, which differs from"),
        (5, "Selected: step 5 of 6;"),
    ],
)
def test_people_are_told_what_was_returned(best_step, said, make_task):
    run = begin(make_task(), BatchNormStatistics, BatchNormRecipe())
    run.selection.best_step = best_step
    assert outcome_text(run).startswith(said)
    run.stopped = "one class is left"
    assert outcome_text(run).startswith(f"The run was stopped: one class is left. {said}")


@pytest.mark.parametrize(
    ("keep", "best_step", "said"),
    [
        ("last", 6, "Selected: step 6 of 6, the last, whatever its score (--keep last); label-"),
        ("last", None, "Selected: the source model, unchanged; no checkpoint predicts finite"),
        ("source", None, "Selected: the source model, unchanged; as asked with --keep source. It"),
    ],
)
def test_people_are_told_that_they_overruled_the_selection(keep, best_step, said, make_task):
    run = begin(make_task(), BatchNormStatistics, BatchNormRecipe())
    run.task.selection = dataclasses.replace(run.task.selection, keep=keep)
    run.selection.best_step = best_step
    assert outcome_text(run).startswith(said)
    assert rejection_text(run, [{"step": 4, "score": 1.0, "accuracy": 0.0}]) == ""


def test_people_are_told_why_a_higher_score_was_refused(make_task):
    run = begin(make_task(), BatchNormStatistics, BatchNormRecipe())
    source = run.selection.source
    run.method.trains_on_ensemble = True
    line = {"step": 4, "score": 1.05 * source.score, "accuracy": source.accuracy}
    assert line["score"] < run.selection.least_student_score
    assert rejection_text(run, [{"step": 0, "score": 0.0, "accuracy": 0.0}, line]) == (
        f"Step 4 scored {1.05 * source.score:.3f} and was rejected: a student trained on the "
        f"ensemble's labels must score at least {run.selection.least_student_score:.3f}."
    )
    wrong = 1 - 1.2 * (1 - source.accuracy)
    assert "wrong pixels" in rejection_text(run, [line | {"accuracy": wrong}])
    assert rejection_text(run, [line | {"score": source.score}]) == ""
    assert rejection_text(run, [{"step": 1}]) == ""
    assert rejection_text(run, [line | {"step": 0}]) == "", "nothing was learnt yet: no student"
    run.selection.best = dataclasses.replace(source, score=1.05 * source.score)
    assert rejection_text(run, [line]) == ""


def test_the_statistics_are_mixed_before_the_last_judgement(tmp_path, make_task, tiny_model):
    task = make_task()
    run = begin(task, BatchNormStatistics, BatchNormRecipe(1.0, num_images=12, batch_size=4))
    seen = []
    judge = run.selection.score
    run.selection.score = lambda model: seen.append(model[1].running_mean.clone()) or judge(model)
    adapt(run, tmp_path)
    assert not torch.equal(seen[-1], tiny_model[1].running_mean)


def test_a_foreign_checkpoint_is_an_error(tmp_path, make_task):
    run = begin(make_task(), BatchNormStatistics, BatchNormRecipe())
    with pytest.raises(RunError, match="nothing to resume"):
        run.resume(tmp_path / "last.pt")
    save_state(tmp_path / "last.pt", {"model": {}, "method": {}, "next_step": 1})
    with pytest.raises(RunError, match="not a checkpoint of this run"):
        run.resume(tmp_path / "last.pt")


def test_a_disk_that_is_full_is_found_before_anything_is_learnt(tmp_path, make_task, monkeypatch):
    run = begin(make_task(), BatchNormStatistics, BatchNormRecipe())

    def full(state, part):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", full)
    with pytest.raises(RunError, match="No space left"):
        adapt(run, tmp_path)
    assert run.next_step == 0


def test_a_disk_that_would_be_full_later_is_found_before_anything_is_learnt(
    tmp_path, make_task, monkeypatch
):
    run = begin(make_task(), BatchNormStatistics, BatchNormRecipe())
    run.save(checkpoint_path(tmp_path))
    size = checkpoint_path(tmp_path).stat().st_size
    usage = lambda free: lambda _path: SimpleNamespace(free=free)
    monkeypatch.setattr("shutil.disk_usage", usage(5 * size - 1))
    with pytest.raises(RunError, match="MB left and the run may need"):
        adapt(run, tmp_path)
    assert run.next_step == 0
    monkeypatch.setattr("shutil.disk_usage", usage(5 * size + 1000))
    adapt(run, tmp_path)


@pytest.mark.parametrize(("name", "rounds"), [("multiview", 0), ("selftrain", 2)])
def test_labels_that_are_to_come_need_room_too(name, rounds, tmp_path, make_task, monkeypatch):
    """Those of the default are there before the first step."""
    _, recipe = load_method_recipe(name, None, ("steps=4", "batch_size=2"))
    run = begin(make_task(count=10), METHODS[name][1], recipe)
    assert run.method.bytes_to_come() == rounds * 10 * 3 * 16 * 32
    run.save(checkpoint_path(tmp_path))
    size = checkpoint_path(tmp_path).stat().st_size
    free = 5 * size + rounds * 10 * 3 * 16 * 32 - 1
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=free))
    with pytest.raises(RunError, match="MB left and the run may need"):
        adapt(run, tmp_path)


@pytest.mark.parametrize(
    ("num_steps", "judged"), [(25, [10, 20, 25]), (160, [20, 40]), (100_000, [250, 500])]
)
def test_a_run_is_judged_eight_times_within_reason(
    num_steps, judged, tmp_path, make_task, monkeypatch
):
    run = begin(make_task(), BatchNormStatistics, BatchNormRecipe())
    run.method.num_steps = num_steps
    monkeypatch.setattr(run, "save", lambda _path: None)
    monkeypatch.setattr(run.method, "step", lambda *_: {"loss": 0.0})
    steps = (line["step"] for line in _steps(run, tmp_path, observe_nothing) if "score" in line)
    assert list(islice(steps, len(judged))) == judged


def test_what_is_logged_can_be_watched_while_the_run_goes_on(tmp_path):
    lines = [{"step": 1, "loss": 0.5, "class_shares": [1.0]}, {"step": 2, "loss": 0.25}]

    def scalars():
        found = EventAccumulator(str(tmp_path)).Reload()
        return {
            tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.scalars.Keys()
        }

    shown = iter(with_tensorboard(silent, tmp_path, 0)(lines))
    assert list(shown) == lines
    assert scalars() == {"loss": [(1, 0.5), (2, 0.25)]}
    again = [{"step": 2, "loss": 0.125}]  # killed, and gone on from the first step
    assert list(with_tensorboard(silent, tmp_path, 1)(again)) == again
    assert scalars() == {"loss": [(1, 0.5), (2, 0.125)]}
    assert list(with_tensorboard(silent, tmp_path, 0)(lines)) == lines  # and from the beginning
    assert scalars() == {"loss": [(1, 0.5), (2, 0.25)]}


def test_a_full_disk_during_the_run_keeps_the_last_checkpoint(tmp_path, make_task, monkeypatch):
    run = begin(make_task(), BatchNormStatistics, BatchNormRecipe())
    path = tmp_path / "last.pt"
    run.save(path)
    before = path.read_bytes()

    def full(state, part):
        part.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", full)
    with pytest.raises(RunError, match="No space left"):
        run.save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["last.pt"]


def test_what_preparation_alone_makes_of_the_model_is_considered(make_task, tmp_path, monkeypatch):
    """A method that only does harm after good statistics returns the statistics."""

    class Harmful(BatchNormStatistics):
        def prepare(self, views):
            with torch.no_grad():
                self.model[3].bias.add_(1.0)

        def step(self, images, indices, step):
            return {"loss": 0.0}

        def finish(self):
            with torch.no_grad():
                self.model[3].bias.sub_(2.0)

    run = begin(make_task(), Harmful, BatchNormRecipe(num_images=8, batch_size=4))
    prepared = run.method.model[3].bias.clone()
    scores = iter([0.9, 0.1])
    verdict = run.selection.source
    judge = lambda _model: dataclasses.replace(verdict, score=next(scores))
    monkeypatch.setattr(run.selection, "score", judge)
    adapt(run, tmp_path)
    assert run.selection.best_step == 0
    assert torch.equal(run.method.model[3].bias, prepared)


@pytest.mark.parametrize(("steps_done", "kept"), [(0, []), (1, [0, 1]), (2, [0, 1, 2])])
def test_a_resumed_run_cuts_off_the_lines_of_steps_to_come(steps_done, kept, tmp_path):
    lines = [json.dumps({"step": step}) + "\n" for step in range(4)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines) + '{"step": 4, "lo')  # a kill
    open_metrics(tmp_path, steps_done).close()
    assert [line["step"] for line in read_metrics(tmp_path)] == kept
