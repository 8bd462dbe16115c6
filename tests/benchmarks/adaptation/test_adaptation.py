import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.adaptation import __main__ as adaptation
from benchmarks.adaptation import tasks as adaptation_tasks
from benchmarks.adaptation.accuracy import measure_row
from benchmarks.adaptation.tasks import BenchmarkTask, benchmark_tasks
from sfda_edge.adaptation.begin import begin
from sfda_edge.errors import DataError
from sfda_edge.models.source_model import ModelRequest

sys.path.insert(0, str(Path(__file__).parents[2] / "sfda_edge"))


def test_images_of_home_that_are_missing_are_said_before_the_work(tmp_path, monkeypatch):
    def began(*_arguments):
        raise AssertionError("the adaptation began")

    monkeypatch.setattr("benchmarks.adaptation.accuracy.begin", began)
    task = benchmark_tasks(None, tmp_path / "nothing")["clip"]
    with pytest.raises(DataError, match="nothing/clear/val"):
        measure_row(task, "bn", 0)


@pytest.fixture
def small_task(monkeypatch, labelled_folder, three_classes):
    """An untrained network on six small labelled images."""
    import torch

    from sfda_edge.models import ModelSpec, build_model
    from sfda_edge.models.checkpoint import save_model

    torch.manual_seed(0)
    spec = ModelSpec("user_network:build", three_classes, (32, 64))
    save_model(labelled_folder / "model.safetensors", build_model(spec), spec)
    images = str(labelled_folder / "images")
    task = BenchmarkTask(
        title="small",
        flags=ModelRequest(
            labelled_folder / "model.safetensors", architecture="user_network:build"
        ),
        target=images,
        validation=images,
        labels_dir=labelled_folder / "labels",
        home=images,
        home_labels_dir=labelled_folder / "labels",
    )
    monkeypatch.setattr(adaptation_tasks, "benchmark_tasks", lambda *_: {"A": task})
    return labelled_folder


def test_rows_are_added_one_by_one_and_never_measured_twice(small_task, capsys):
    out = small_task / "accuracy.json"
    arguments = ["accuracy", "--recipes", "tent,maxsquare", "--set", "steps=2", "--out", str(out)]
    assert adaptation.main([*arguments, "--seeds", "0"]) == 0
    first = json.loads(out.read_text())["rows"]
    assert [row["recipe"] for row in first] == ["tent", "maxsquare"]
    for row in first:
        assert [checkpoint["step"] for checkpoint in row["checkpoints"]] == [0, 2]
        met = [checkpoint["miou"] for checkpoint in row["checkpoints"]]
        assert row["returned_miou"] in (*met, row["source_miou"])
        # "At home" is scored on the target's images here.
        assert row["home_source"] == row["source_miou"]
        assert row["home_returned"] == row["returned_miou"]
        assert row["home_final"] == row["final_miou"]
    assert adaptation.main([*arguments, "--seeds", "0,1"]) == 0
    second = json.loads(out.read_text())["rows"]
    assert second[:2] == first
    assert [row["seed"] for row in second] == [0, 0, 1, 1]
    printed = capsys.readouterr().out
    assert "| A | tent steps=2 | 2 |" in printed
    assert "rank correlation" in printed
    assert adaptation.main(["table", str(out)]) == 0
    bf16 = [*arguments, "--seeds", "0", "--recipes", "tent", "--precision", "bf16"]
    assert adaptation.main(bf16) == 0
    third = json.loads(out.read_text())["rows"]
    assert third[:4] == second
    assert [(row["precision"], row["device"]) for row in third[3:]] == [
        ("fp32", "cpu"),
        ("bf16", "cpu"),
    ]
    assert all(row["command"].startswith("python -m benchmarks.adaptation a") for row in third)


def test_rows_of_other_weights_or_images_are_not_taken_for_these(small_task, capsys):
    out = small_task / "accuracy.json"
    arguments = ["accuracy", "--recipes", "bn", "--seeds", "0", "--out", str(out)]
    assert adaptation.main(arguments) == 0
    before = out.read_bytes()
    (small_task / "images" / "5.png").unlink()
    assert adaptation.main(arguments) == 2
    assert "A, bn, seed 0 with another target_sha256" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_a_row_names_the_code_that_it_began_with(small_task, monkeypatch):
    commits = ["at the start"]

    def meanwhile(*task):
        commits.append("later")
        return begin(*task)

    monkeypatch.setattr("benchmarks.adaptation.accuracy.commit", lambda: commits[-1])
    monkeypatch.setattr("benchmarks.adaptation.accuracy.begin", meanwhile)
    (task,) = adaptation_tasks.benchmark_tasks().values()
    assert measure_row(task, "bn", 0)["commit"] == "at the start"


@pytest.mark.parametrize("content", ['{"rows": [{"task": ', "[]", '{"rows": [1]}'])
@pytest.mark.parametrize("words", [["table"], ["accuracy", "--out"]])
def test_a_file_that_is_no_record_is_named_and_stays(tmp_path, capsys, words, content):
    path = tmp_path / "rows.json"
    path.write_text(content)
    assert adaptation.main([*words, str(path)]) == 2
    assert f"{path} is no record of benchmarks.adaptation" in capsys.readouterr().err
    assert path.read_text() == content


def test_a_table_of_nothing_is_an_error(tmp_path, capsys):
    assert adaptation.main(["table", str(tmp_path / "rows.json")]) == 2
    assert "rows.json cannot be read: No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["accuracy", "--seeds", "x"], "expected a whole number from 0, got 'x'"),
        (["accuracy", "--seeds", "1,1"], "expected each value once, got '1,1'"),
        (["speed", "--recipes", "bn"], "bn alone, which takes no steps"),
        (["speed", "--tasks", "A,B"], "speed is measured on one task, got A, B"),
    ],
)
def test_arguments_that_cannot_be_are_said(capsys, words, message):
    with contextlib.suppress(SystemExit):  # of argparse
        assert adaptation.main(words) == 2
    assert message in capsys.readouterr().err


def test_steps_are_timed_beside_a_supervised_one(small_task, capsys):
    out = small_task / "speed.json"
    arguments = ["speed", "--recipes", "sfda,multiview", "--batch-size", "2", "--rounds", "1"]
    assert adaptation.main([*arguments, "--steps", "1", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert set(record["rows"]) == {"supervised", "sfda", "multiview"}
    assert record["rows"]["supervised"]["of_supervised"] == 1.0
    for name in ("sfda", "multiview"):
        shares = record["rows"][name]["share_of_time"]
        assert set(shares) == {"data", "forward", "other"}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
        assert shares["forward"] > 0
    assert "supervised" in capsys.readouterr().out


def test_an_unknown_task_is_exit_code_2(capsys):
    assert adaptation.main(["accuracy", "--tasks", "Z"]) == 2
    assert "unknown task 'Z'; known: A, B, D" in capsys.readouterr().err
    assert set(benchmark_tasks(None, Path("work"))) == {
        *("A", "B", "C", "D", "E", "F", "A-out", "B-out", "D-out", "clip", "C-out", "E-out"),
        *("portraits", "organs", "vessels", "portraits-home", "organs-home", "vessels-home"),
        *("groupnorm", "layernorm"),
    }


def test_a_task_may_leave_out_a_drive(labelled_folder):
    task = BenchmarkTask(
        title="", flags=ModelRequest(), validation="", target=str(labelled_folder / "images")
    )
    assert len(task.target_images()) == 6
    names = [sample.name for sample in replace(task, drives=("0", "4")).target_images().samples]
    assert names == ["0.png", "4.png"]
    with pytest.raises(DataError, match="has no image of drives 9"):
        replace(task, drives=("9",)).target_images()
