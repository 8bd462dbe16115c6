"""Every way answers alike on a small model, and what is missing is said."""

from types import SimpleNamespace

import pytest

from benchmarks.measuring.rows import read_rows
from benchmarks.peers import __main__ as peers
from benchmarks.peers import frames as peer_frames
from benchmarks.peers import video_loops, videos
from benchmarks.peers.table import table
from runtime.errors import SourceError
from sfda_edge.errors import DataError

pytestmark = pytest.mark.slow
OURS = ["sfda-edge, onnxruntime", "sfda-edge, openvino", "sfda-edge, opencv"]
OTHERS = ["ONNX Runtime, all in the graph", "OpenVINO, all in the graph"]
OTHERS += ["ONNX Runtime + NumPy", "OpenVINO + NumPy", "OpenCV DNN + NumPy"]
TORCH = ["torch, eager", "torch, compiled", "torch, TorchScript"]


@pytest.mark.usefixtures("little_effort")
def test_all_ways_to_a_label_map_give_the_same_labels(in_empty_folder, monkeypatch, capsys):
    monkeypatch.setattr("torch.compile", lambda network: network)  # it takes a minute
    arguments = ["frames", "--size", "192x96", "--seconds", "1", "--out", "rows.jsonl"]
    assert peers.main(arguments) == 0
    rows = {row.way: row for row in read_rows(in_empty_folder / "rows.jsonl")}
    assert list(rows) == [*OURS, *OTHERS, *TORCH, "OpenVINO benchmark_app"]
    for name in [*OURS, *OTHERS, *TORCH]:
        figures = rows[name].figures
        assert figures["same_labels"] > 0.999, name
        assert figures["count"] >= 10
        assert figures["load_s"] >= 0
        assert figures["first_call_ms"] > 0
        paced = figures["paced"]
        assert paced["frames"] == paced["age"]["count"] + paced["dropped"] >= 1
    assert rows[OURS[0]].figures["ratio"]["median"] == 1
    assert rows["OpenVINO benchmark_app"].figures["p50_ms"] > 0
    assert rows[OURS[0]].subject == ("lite0_fpn_tiny", "192x96", "fp32")
    printed = capsys.readouterr().out
    assert all(f"| {name} |" in printed for name in rows)


@pytest.mark.usefixtures("little_effort")
def test_what_does_not_start_is_said_and_the_others_are_measured(
    in_empty_folder, monkeypatch, capsys
):
    def missing():
        raise ModuleNotFoundError("No module named 'openvino'\nmore")

    ways = {"ours": lambda: lambda frame: frame[..., 0], "OpenVINO": missing}
    monkeypatch.setattr(peer_frames, "openers", lambda _subject, _stack: ways)
    monkeypatch.setattr(peer_frames, "_BENCHMARK_APP", "raise SystemExit('no benchmark_app')")
    assert peers.main(["frames", "--size", "192x96", "--out", "rows.jsonl"]) == 0
    rows = {row.way: row for row in read_rows(in_empty_folder / "rows.jsonl")}
    assert rows["OpenVINO"].figures == {"did_not_run": "No module named 'openvino'"}
    assert rows["OpenVINO benchmark_app"].figures == {"did_not_run": "no benchmark_app"}
    assert rows["ours"].figures["same_labels"] == 1
    assert "OpenVINO is not measured: No module" in capsys.readouterr().err
    assert "did not run: no benchmark_app" in table(list(rows.values())).markdown()


def test_all_video_loops_write_every_frame(in_empty_folder, monkeypatch, capsys):
    import cv2

    monkeypatch.setattr(videos, "VIDEO_HW", (72, 128))
    monkeypatch.setattr(videos, "VIDEO_FRAMES", 6)
    lengths = {}

    def counted(loop, task):
        count = loop(task)
        capture = cv2.VideoCapture(str(task.out))
        lengths[task.out.name] = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        return float(count)

    monkeypatch.setattr(videos, "frames_per_second", counted)
    assert peers.main(["video", "--size", "192x96", "--rounds", "1", "--out", "rows.jsonl"]) == 0
    rows = {row.way: row.figures for row in read_rows(in_empty_folder / "rows.jsonl")}
    assert len(rows) == 8
    ran = {way for way, figures in rows.items() if "did_not_run" not in figures}
    assert {"sfda-edge: model, colours and saving", "OpenCV: model, colours and saving"} <= ran
    assert {"sfda-edge: colours and saving", "OpenCV: colours and saving"} <= ran
    assert all(rows[way]["per_second"] == 6 for way in ran)
    assert set(lengths.values()) == {6}
    skipped = capsys.readouterr().err
    assert all(f"{way} is not measured" in skipped for way in rows.keys() - ran)


def test_what_cannot_be_measured_is_exit_code_2(in_empty_folder, capsys):
    assert peers.main(["frames", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["frames", "--rounds", "2"], ["video", "--camera-fps", "9"], []]
)
def test_a_flag_of_the_other_part_is_refused(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        peers.main(arguments)
    assert "error: " in capsys.readouterr().err


def test_a_loop_that_reads_less_than_ours_has_no_rate(tmp_path, monkeypatch):
    loops = {videos.OURS: lambda _task: 6, "a library": lambda _task: 5}
    monkeypatch.setattr(videos, "LOOPS", loops)
    tasks = {f"{name}: part": None for name in loops}
    figures, calls = videos._trials(tasks)
    assert list(calls) == [f"{videos.OURS}: part"]
    assert figures["a library: part"] == {"did_not_run": "it read 5 of 6 frames"}
    with pytest.raises(SourceError, match="cannot read"):
        list(video_loops._read(tmp_path / "missing.mp4"))

    def broken(_task):
        raise SourceError("no such video")

    monkeypatch.setattr(videos, "LOOPS", {videos.OURS: broken})
    task = SimpleNamespace(video="missing.mp4")
    with pytest.raises(DataError, match=r"missing\.mp4 cannot be measured: no such video"):
        videos._trials({f"{videos.OURS}: part": task})
