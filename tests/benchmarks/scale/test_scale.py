"""Streams, sizes and classes: rows of each, with ratios to the first."""

import pytest

import export
import sfda_edge
from benchmarks.measuring.rows import read_rows
from benchmarks.scale.__main__ import main

pytestmark = pytest.mark.slow


def test_streams_share_one_model_with_and_without_batches(in_empty_folder, capsys):
    model = sfda_edge.load_model(size_hw=(96, 192))
    export.export(model, images="streetsynth:target", dynamic_batch=True, out_dir="bundle")
    arguments = ["streams", "--counts", "1,3", "--frames", "8", "--rounds", "2"]
    assert main([*arguments, "--bundle", "bundle", "--out", "rows.jsonl"]) == 0
    assert main([*arguments, "--out", "rows.jsonl"]) == 0  # the packaged one takes no batches
    rows = read_rows(in_empty_folder / "rows.jsonl")
    ways = ["1 stream", "3 streams", "3 streams, batched", "1 stream", "3 streams"]
    assert [row.way for row in rows] == ways
    assert rows[0].figures["ratio"]["rounds"] == [1.0, 1.0]
    assert all(row.figures["images_per_second"] > 0 for row in rows)
    assert rows[0].size == "192x96"
    assert "| 3 streams, batched |" in capsys.readouterr().out


@pytest.mark.usefixtures("little_effort")
@pytest.mark.parametrize(
    ("arguments", "ways"),
    [
        (["sizes", "--sizes", "96x48,192x96"], ["96x48", "192x96"]),
        (["classes", "--counts", "2,5"], ["2 classes", "5 classes"]),
    ],
)
def test_a_frame_is_timed_at_each(in_empty_folder, arguments, ways, capsys):
    assert main([*arguments, "--seconds", "1", "--out", "rows.jsonl"]) == 0
    rows = read_rows(in_empty_folder / "rows.jsonl")
    assert [row.way for row in rows] == ways
    assert rows[0].figures["ratio"]["median"] == 1
    assert rows[0].figures["count"] >= 10
    if arguments[0] == "sizes":
        figures = rows[1].figures
        per_megapixel = figures["p50_ms"] / (192 * 96 / 1e6)
        assert figures["ms_per_megapixel"] == pytest.approx(per_megapixel, rel=1e-3)
    assert f"| {ways[1]} |" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["sizes", "--sizes", "abc"],
        ["classes", "--counts", "300"],
        ["streams", "--counts", "0"],
        ["images", "--threads", "2"],
        [],
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "error: " in capsys.readouterr().err


def test_an_adaptation_that_fails_is_exit_code_2(tmp_path, capfd):
    assert main(["images", "--counts", "2", "--method", "nothing"]) == 2
    assert "adapt ended with exit code 2" in capfd.readouterr().err


def test_a_bundle_that_is_missing_is_exit_code_2(capsys):
    assert main(["streams", "--bundle", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
