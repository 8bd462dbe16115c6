import json

import numpy as np
import pytest

import export
import sfda_edge
from benchmarks import efficiency, shared_model, soak, stream
from benchmarks.rtsp_camera import NEEDED_PACKAGES, can_serve
from benchmarks.timing import summarise, time_in_turn
from runtime.packaged import BUNDLE_DIR

pytestmark = pytest.mark.slow


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
        assert "engine only" in text
        assert "onnxruntime" in text


def test_what_cannot_be_measured_is_exit_code_2(capsys):
    assert stream.main(["nothing.mp4"]) == 2
    assert "does not exist" in capsys.readouterr().err


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
    assert printed.count("100.000 %") == 4


def test_the_decoders_are_timed(capsys):
    from benchmarks import decoder, light_decoders

    record = light_decoders.measure(rounds=1, num_threads=1, input_hw=(64, 128))
    shown = decoder.text(record)
    assert list(record["networks"]) == ["encoder only", "feature pyramid", "LR-ASPP"]
    assert "64" in shown
    assert all(row["calls"] == 10 for row in record["networks"].values())


def test_precisions_are_measured_side_by_side(in_empty_folder, capsys, monkeypatch):
    from benchmarks import precisions
    from sfda_edge.cli import main as cli

    adapt = ["adapt", "--method", "bn", "--size", "192x96", "--out", "run"]
    assert cli.main(adapt) == 0
    flags = ["--validation", "streetsynth:clip", "--rounds", "1", "--out", "rows.json"]
    flags += ["--precisions", "fp32,fp16"]  # int8's search takes a minute
    assert precisions.main(["run", *flags]) == 0
    rows = json.loads((in_empty_folder / "rows.json").read_text())["rows"]
    by_precision = {row["precision"]: row for row in rows}
    assert set(by_precision) == {"fp16", "fp32"}
    assert by_precision["fp32"]["times_fp32"] == 1
    assert by_precision["fp32"]["label_agreement"] > 0.9995
    assert by_precision["fp16"]["bytes"] < 0.7 * by_precision["fp32"]["bytes"]
    assert abs(by_precision["fp16"]["miou"] - by_precision["fp32"]["miou"]) <= 0.5
    assert "lite0_fpn_tiny 192x96 fp16" in capsys.readouterr().out
    again = ["run", "--out", "rows.json", "--precisions", "fp32,fp16", "--time-again"]
    with monkeypatch.context() as patched:
        times_ms = {"fp32": 4.0, "fp16": 3.0}
        patched.setattr("benchmarks.precision_rows._times_ms", lambda *_: times_ms)
        assert precisions.main(again) == 0
    timed = json.loads((in_empty_folder / "rows.json").read_text())["rows"]
    assert [row["miou"] for row in timed] == [row["miou"] for row in rows]
    found = {row["precision"]: (row["p50_ms"], row["times_fp32"]) for row in timed}
    assert found == {"fp32": (4.0, 1.0), "fp16": (3.0, 0.75)}
    assert cli.main(["export", "run", "--out", "work/lite0_fpn_tiny-192x96-fp16"]) == 0
    capsys.readouterr()
    assert precisions.main(again) == 2
    assert "is not the bundle" in capsys.readouterr().err
    assert precisions.main([*again, "--profile", "rtx"]) == 2
    assert "has no rows of run" in capsys.readouterr().err
    assert precisions.main(["nowhere", "--out", "rows.json"]) == 2
    assert "is not a run" in capsys.readouterr().err


def test_a_precision_that_failed_has_a_row(tmp_path, capsys):
    from benchmarks import precisions

    row = {"network": "a", "size": "8x8", "profile": "cpu", "precision": "int8", "failed": "below"}
    precisions._add(tmp_path / "rows.json", [row])
    precisions._add(tmp_path / "rows.json", [{**row, "failed": "later"}])
    assert len(json.loads((tmp_path / "rows.json").read_text())["rows"]) == 1
    assert precisions.main(["--out", str(tmp_path / "rows.json")]) == 0
    assert "a 8x8 int8" in capsys.readouterr().out


def test_an_engine_of_a_bundle_has_its_row(tmp_path, capsys):
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx-cu13 (x86_64)")
    from benchmarks import engines

    files = sorted(path.name for path in BUNDLE_DIR.iterdir())
    out = ["--out", str(tmp_path / "engines.json")]
    assert engines.main([str(BUNDLE_DIR), "--compute-capability", "8.9", *out]) == 0
    assert "34 CONVOLUTION FLOAT" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "engines.json").read_text())["rows"]
    assert row["io_types"] == {"image": "UINT8 1x192x384x3", "label_map": "UINT8 1x192x384"}
    assert sorted(path.name for path in BUNDLE_DIR.iterdir()) == files
    assert engines.main([str(tmp_path), *out]) == 2


def test_each_process_reads_its_share(in_empty_folder, capsys):
    from benchmarks import data_parallel

    arguments = ["--processes", "1,2", "--method", "tent", "--batch-size", "4", "--steps", "2"]
    arguments += ["--size", "96x48"]
    assert data_parallel.main([*arguments, "--no-cache", "--out", "result.json"]) == 0
    one, two = json.loads((in_empty_folder / "result.json").read_text())["rows"]
    assert one["decoded_to_check"] == [one["images"]]
    assert sum(two["decoded_to_check"]) == one["images"]
    assert max(two["decoded_to_check"]) == -(-one["images"] // 2)
    assert one["decoded_in_steps"] == [8]
    assert two["decoded_in_steps"] == [4, 4]
    assert "speed-up" in capsys.readouterr().out


def test_a_device_is_checked_backend_by_backend(in_empty_folder, capsys, monkeypatch):
    from benchmarks import device_check

    monkeypatch.setattr(device_check, "LATENCY_CALLS", 5)
    monkeypatch.setattr(device_check, "LEAK_CALLS", 5)
    arguments = ["--backends", "onnxruntime,openvino,onnxruntime-cuda", "--out", "check.json"]
    assert device_check.main(arguments) == 0
    record = json.loads((in_empty_folder / "check.json").read_text())
    rows = {row["backend"]: row for row in record["backends"]}
    assert set(rows) == {
        "onnxruntime",
        "openvino",
        "onnxruntime-cuda",
        "onnxruntime-cuda, no CUDA graph",
    }
    assert rows["onnxruntime"]["agreement_with_cpu"] == 1.0
    assert rows["onnxruntime"]["latency"]["calls"] == 5
    shown = capsys.readouterr().out
    for name, row in rows.items():
        assert name in shown
        assert row.get("did_not_run") or row["golden_agreement"] > 0.99


def test_a_stream_is_measured_beside_a_plain_loop(in_empty_folder, capsys):
    assert efficiency.main(["--frames", "6", "--rounds", "2", "--out", "out.json"]) == 0
    record = json.loads((in_empty_folder / "out.json").read_text())
    names = {"engine", "stream", "stream, video", "plain loop", "plain loop, video"}
    assert names | {"stream, spinning", "stream, video, spinning"} <= set(record["per_second"])
    assert all(rate > 0 for rate in record["per_second"].values())
    assert record["ratio_to_engine"]["engine"] == {"median": 1.0, "rounds": [1.0, 1.0]}
    parts = record["processor_ms_per_frame"]
    assert parts["outside model and decoding"] == pytest.approx(
        parts["to RGB"] + parts["resize, threads, queues"], abs=2e-3
    )
    assert "stream, video, spinning" in capsys.readouterr().out


def test_streams_on_one_model_are_measured_with_and_without_batches(in_empty_folder, capsys):
    assert shared_model.main(["--bundle", str(BUNDLE_DIR)]) == 2
    assert "takes one image at a time; export it with --dynamic-batch" in capsys.readouterr().err
    model = sfda_edge.load_model(size_hw=(48, 96))
    export.export(model, images="streetsynth:target", dynamic_batch=True, out_dir="bundle")
    arguments = ["--bundle", "bundle", "--frames", "8", "--rounds", "1", "--streams", "3"]
    assert shared_model.main([*arguments, "--out", "out.json"]) == 0
    record = json.loads((in_empty_folder / "out.json").read_text())
    assert set(record["per_second"]) == {"one stream", "3 streams", "3 streams, batched"}
    assert record["ratio_to_one_stream"]["one stream"]["rounds"] == [1.0]


def test_training_is_measured_in_both_precisions(monkeypatch):
    from benchmarks import device_training

    monkeypatch.setattr(device_training, "BATCH_SIZE", 2)
    monkeypatch.setattr(device_training, "WARM_UP_STEPS", 1)
    monkeypatch.setattr(device_training, "MOST_STEPS", 2)
    rows = device_training.measure_training(
        "cpu", [("fp32", False), ("fp16", False)], size_hw=(48, 96)
    )
    assert rows[0]["steps"] == 2
    assert rows[0]["images_per_second"] == pytest.approx(2000 / rows[0]["step_ms"], rel=0.01)
    assert "fp16 needs a CUDA GPU" in rows[1]["did_not_run"]


@pytest.mark.slow
@pytest.mark.skipif(not can_serve(), reason=f"needs Debian's {NEEDED_PACKAGES}")
def test_a_short_soak_is_measured_and_a_kill_loses_little(tmp_path, capsys):
    assert soak.main(["rtsp", "--minutes", "0.1", "--out", str(tmp_path / "soak.json")]) == 0
    record = json.loads((tmp_path / "soak.json").read_text())
    counts = record["frames"]
    assert counts["read"] == counts["segmented"] + counts["dropped"] > 50
    assert record["exceeded"] == []
    assert record["memory_mib"]["warm"] > 50
    capsys.readouterr()
    assert soak.main(["kill", "--kills", "1"]) == 0
    assert set(json.loads(capsys.readouterr().out)["worst_lost_s"]) == {"mp4", "mcap"}
