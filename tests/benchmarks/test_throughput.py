"""Several files through one device: every frame of every file, in each way."""

import pytest

from benchmarks import throughput
from benchmarks.measuring.energy import Meter
from benchmarks.measuring.rows import read_rows
from runtime.errors import SourceError

pytestmark = pytest.mark.slow


def test_each_way_reads_every_frame(in_empty_folder, monkeypatch, capsys):
    monkeypatch.setattr(throughput, "VIDEO_HW", (72, 128))
    joules = iter(range(0, 10000, 12))
    meter = Meter("a sensor", lambda: float(next(joules)), counts=True)
    monkeypatch.setattr("benchmarks.measuring.energy.find_meter", lambda **_: meter)
    timed = []
    monkeypatch.setattr(throughput, "_timed", lambda run: timed.append(run()) or (timed[-1], 2.0))
    arguments = ["--count", "3", "--frames", "4", "--rounds", "1", "--out", "rows.jsonl"]
    arguments += ["--threads", "2"]
    assert throughput.main(arguments) == 0
    rows = read_rows(in_empty_folder / "rows.jsonl")
    ways = ["one after the other", "2 side by side", "2 processes", "plain loop"]
    assert [row.way for row in rows] == ways
    assert timed == [12, 12, 12, 12]
    for row in rows:
        assert row.figures["frames_per_second"] == 6
        assert row.figures["joules_per_frame"] == 1
        assert row.figures["energy_sensor"] == "a sensor"
    assert rows[0].conditions == {"files": 3, "backend": "onnxruntime", "threads": 2}
    printed = capsys.readouterr().out
    assert "| 2 processes | onnxruntime | 6.0 | 1.00" in printed
    assert "| joules a frame, a sensor |" in printed


def test_the_energy_of_a_gpu_is_not_given_to_a_loop_on_the_processor(in_empty_folder, monkeypatch):
    asked = []
    meter = Meter("a GPU", iter(range(1000)).__next__, counts=True)
    find = lambda on_gpu: asked.append(on_gpu) or meter
    monkeypatch.setattr("benchmarks.measuring.energy.find_meter", find)
    ways = {"one after the other": lambda: 3, throughput.PLAIN: lambda: 3}
    monkeypatch.setattr(throughput, "_ways", lambda *_: ways)
    arguments = ["--backend", "tensorrt", "--count", "1", "--rounds", "1", "--frames", "3"]
    assert throughput.main([*arguments, "--out", "rows.jsonl"]) == 0
    assert asked == [True]
    first, plain = read_rows(in_empty_folder / "rows.jsonl")
    assert [row.figures["backend"] for row in (first, plain)] == ["tensorrt", "onnxruntime"]
    assert "joules_per_frame" in first.figures
    assert "joules_per_frame" not in plain.figures
    with pytest.raises(SystemExit, match="2"):
        throughput.main(["--backend", "auto"])  # whose energy would be measured is open


def test_a_way_that_reads_less_is_an_error():
    with pytest.raises(SourceError, match="a: 6, b: 5"):
        throughput._require_same_frames({"a": 6, "b": 5})
    with pytest.raises(SourceError, match="a: 0"):
        throughput._require_same_frames({"a": 0})


def test_without_a_sensor_nothing_is_invented(in_empty_folder, monkeypatch, capsys):
    monkeypatch.setattr(throughput, "VIDEO_HW", (72, 128))
    monkeypatch.setattr("benchmarks.measuring.energy.find_meter", lambda **_: None)
    arguments = ["--count", "1", "--frames", "3", "--rounds", "1", "--out", "rows.jsonl"]
    assert throughput.main(arguments) == 0
    for row in read_rows(in_empty_folder / "rows.jsonl"):
        assert "joules_per_frame" not in row.figures
    captured = capsys.readouterr()
    assert "this machine shows no power" in captured.err
    assert "not measured" in captured.out


def test_a_file_that_is_missing_is_exit_code_2(capsys):
    assert throughput.main(["nowhere.mp4"]) == 2
    assert "nowhere.mp4" in capsys.readouterr().err
