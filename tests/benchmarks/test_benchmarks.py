import json

import numpy as np
import pytest

from benchmarks import stream
from benchmarks.timing import summarise, time_in_turn


def test_a_bundle_is_measured_on_the_labelled_clip(in_empty_folder, capsys):
    arguments = ["--rounds", "1"]
    assert stream.main([*arguments, "--out", "result"]) == 0
    record = json.loads((in_empty_folder / "result.json").read_text())
    assert record["frames"] == 72
    assert (
        0
        < record["ratio"]
        == pytest.approx(record["end_to_end"]["fps"] / record["engine"]["per_second"], rel=1e-2)
    )
    assert 0.2 < record["miou"] < 0.6
    assert record["machine"]["cores"] >= 1
    printed, table = capsys.readouterr().out, (in_empty_folder / "result.md").read_text()
    for text in (printed, table):
        assert "engine alone" in text
        assert "onnxruntime" in text


def test_what_cannot_be_measured_is_exit_code_2(capsys):
    assert stream.main(["nothing.mp4"]) == 2
    assert "is not there" in capsys.readouterr().err


def test_percentiles_and_rate():
    timing = summarise([10.0] * 99 + [1010.0])
    assert timing.p50_ms == 10
    assert timing.p99_ms == pytest.approx(np.percentile([10.0] * 99 + [1010.0], 99))
    assert timing.per_second == pytest.approx(100 / 2.0)


def test_functions_are_timed_in_turn():
    order = []
    timings = time_in_turn(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3, per_turn=4
    )
    assert order == (["a"] * 6 + ["b"] * 6) * 4
    assert timings["a"].calls == 3 * 4


def test_the_graphs_are_timed_and_agree(capsys):
    from benchmarks import graph

    assert graph.main(["--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    assert all(way in printed for way in ("network + numpy", "plain graph", "our graph"))
    assert printed.count("100.000 %") == 3


def test_the_decoders_are_timed(capsys):
    from benchmarks import decoder, light_decoders

    record = light_decoders.measure(rounds=1, num_threads=1, input_hw=(64, 128))
    shown = decoder.text(record)
    assert list(record["networks"]) == ["encoder alone", "feature pyramid", "LR-ASPP"]
    assert "64" in shown
    assert all(row["calls"] == 10 for row in record["networks"].values())
