"""One that fails, or an end of the time, costs no other's row."""

import json
import time

import pytest

from benchmarks import device_check
from runtime.gpu import Gpu


@pytest.fixture(autouse=True)
def few_calls(monkeypatch):
    for name in ("LATENCY_CALLS", "LEAK_CALLS", "AGREEMENT_FRAMES"):
        monkeypatch.setattr(device_check, name, 2)


@pytest.fixture
def with_gpu(monkeypatch):
    monkeypatch.setattr(device_check, "find_gpu", lambda: Gpu("a GPU", "8.9"))


def record_of(folder):
    return json.loads((folder / "check.json").read_text())


def test_the_record_is_written_after_each_row(in_empty_folder, monkeypatch):
    checked = device_check._checked

    def interrupted(*asked):
        if (in_empty_folder / "check.json").exists():
            raise KeyboardInterrupt
        return checked(*asked)

    monkeypatch.setattr(device_check, "_checked", interrupted)
    assert device_check.main(["--backends", "onnxruntime,openvino", "--out", "check.json"]) == 130
    record = record_of(in_empty_folder)
    assert [row["backend"] for row in record["backends"]] == ["openvino"]
    assert record["command"].startswith("python -m benchmarks.device_check --backends")
    assert "commit" in record


@pytest.mark.parametrize(
    ("built", "said"),
    [
        (AttributeError("no IProgressMonitor"), "AttributeError: no IProgressMonitor"),
        (2, "the reason stands above"),
    ],
)
def test_a_builder_that_fails_costs_no_row(
    in_empty_folder, monkeypatch, capsys, with_gpu, built, said
):
    def build(_arguments):
        if isinstance(built, Exception):
            raise built
        return built

    monkeypatch.setattr("export.engine.__main__.main", build)
    asked = ["--backends", "onnxruntime,tensorrt", "--out", "check.json"]
    assert device_check.main(asked) == 0
    assert f"no engine of tensorrt was built: {said}" in capsys.readouterr().out
    rows = {row["backend"]: row for row in record_of(in_empty_folder)["backends"]}
    assert rows["onnxruntime"]["agreement_with_cpu"] == 1
    assert "did_not_run" in rows["tensorrt"]


def test_ctrl_c_while_an_engine_is_built_ends_the_check(in_empty_folder, monkeypatch, with_gpu):
    answers = iter([2, 130])
    monkeypatch.setattr("export.engine.__main__.main", lambda _arguments: next(answers))
    asked = ["--backends", "tensorrt,tensorrt-rtx", "--out", "check.json"]
    assert device_check.main(asked) == 130
    names = [row["backend"] for row in record_of(in_empty_folder)["backends"]]
    assert names == ["tensorrt", "tensorrt, no CUDA graph"], "what was checked before it stays"


def test_nothing_is_begun_when_the_time_is_over(monkeypatch, with_gpu):
    monkeypatch.setattr("export.engine.__main__.main", lambda _arguments: pytest.fail("it builds"))
    end_s = time.monotonic() - 1
    *_, record = device_check.check(device_check.BUNDLE_DIR, ["onnxruntime", "tensorrt"], end_s)
    assert [row["did_not_run"] for row in record["backends"]] == [device_check.TIME_IS_OVER] * 3
    assert device_check.TIME_IS_OVER == "the 8 minutes of a check were over"


def test_a_torch_that_does_not_start_is_a_row(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "benchmarks.device_training", None)
    (row,) = device_check._training(end_s=0)
    assert "pip install 'sfda-edge[adapt]'" in row["did_not_run"]


def test_an_unknown_backend_is_said(capsys):
    with pytest.raises(SystemExit):
        device_check.main(["--backends", "magic"])
    assert "expected some of tensorrt, " in capsys.readouterr().err
