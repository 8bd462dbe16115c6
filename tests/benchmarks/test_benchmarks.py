import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import onnx
import pytest

from benchmarks import efficiency, soak, stream
from benchmarks.measuring.rows import read_rows
from benchmarks.rtsp_camera import NEEDED_PACKAGES, RtspCamera, can_serve
from runtime.bundle.manifest import file_sha256
from runtime.packaged import BUNDLE_DIR

pytestmark = pytest.mark.slow


def test_a_bundle_is_measured_on_the_labelled_clip(in_empty_folder, capsys):
    arguments = ["--rounds", "2", "--threads", "1"]
    assert stream.main([*arguments, "--out", "rows.jsonl"]) == 0
    engine, whole = read_rows(in_empty_folder / "rows.jsonl")
    assert whole.conditions["frames"] == 72
    assert engine.figures["count"] == 2 * 72
    assert (engine.way, whole.way) == (stream.ENGINE, stream.STREAM)
    assert whole.figures["frames_segmented"] == whole.figures["frames_read"] == 72
    share = whole.figures["share_of_engine"]
    assert share["median"] > 0
    assert share["low"] is share["high"] is None  # of two rounds
    assert share["median"] == pytest.approx(
        whole.figures["per_second"] / engine.figures["per_second"], rel=0.2
    )
    assert 0.2 < whole.figures["miou"] < 0.6
    assert set(whole.figures["stage_ms"]) >= {"read", "infer", "age"}
    printed = capsys.readouterr().out
    assert f"| engine only | {engine.figures['per_second']:.1f} |" in printed
    assert f"| {100 * whole.figures['miou']:.1f} |" in printed


def test_the_clips_labels_score_its_own_classes_alone(tmp_path, capsys):
    """Of another bundle they would be other classes, or outside of them."""
    bundle = tmp_path / "bundle"
    shutil.copytree(BUNDLE_DIR, bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    names = manifest["label_space"]["names"]
    manifest["label_space"]["names"] = [*reversed(names)]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    graph = onnx.load(bundle / "model.onnx")
    for entry in graph.metadata_props:
        if entry.key == "class_names":
            entry.value = json.dumps([*reversed(names)])
    onnx.save(graph, bundle / "model.onnx")
    manifest["sha256"]["model.onnx"] = file_sha256(bundle / "model.onnx")
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    asked = ["--bundle", str(bundle), "--rounds", "1", "--out", str(tmp_path / "rows.jsonl")]
    assert stream.main(asked) == 0
    _, whole = read_rows(tmp_path / "rows.jsonl")
    assert "miou" not in whole.figures


def test_what_cannot_be_measured_is_exit_code_2(capsys):
    assert stream.main(["nothing.mp4"]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_the_decoders_are_timed(in_empty_folder, monkeypatch, capsys):
    from benchmarks import decoder, light_decoders

    # Four of the encoder's seven stages: the exporter takes seconds for the others.
    monkeypatch.setattr(light_decoders, "ALL_STAGES", 4)
    shallow = partial(light_decoders.Lite0FPN, num_stages=4)
    monkeypatch.setattr(light_decoders, "Lite0FPN", shallow)
    arguments = ["--rounds", "1", "--threads", "1", "--size", "128x64", "--out", "rows.jsonl"]
    assert decoder.main(arguments) == 0
    rows = read_rows(in_empty_folder / "rows.jsonl")
    assert [row.way for row in rows] == ["encoder only", "feature pyramid", "LR-ASPP"]
    assert all(row.size == "128x64" and row.figures["count"] == 10 for row in rows)
    assert rows[0].figures["ratio"]["median"] == 1
    assert "| LR-ASPP | " in capsys.readouterr().out


def test_an_engine_of_a_bundle_has_its_row(tmp_path, capsys):
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx-cu13 (x86_64)")
    from benchmarks import engines

    files = sorted(path.name for path in BUNDLE_DIR.iterdir())
    out = ["--out", str(tmp_path / "rows.jsonl")]
    assert engines.main([str(BUNDLE_DIR), "--compute-capability", "8.9", *out]) == 0
    assert "34 CONVOLUTION FLOAT" in capsys.readouterr().out
    (row,) = read_rows(tmp_path / "rows.jsonl")
    ports = {"image": "UINT8 1x192x384x3", "label_map": "UINT8 1x192x384"}
    assert row.figures["io_types"] == ports
    assert (row.subject, row.figures["proved_by"]) == (
        ("lite0_fpn_tiny", "384x192", "fp32"),
        "typed network definition",
    )
    assert sorted(path.name for path in BUNDLE_DIR.iterdir()) == files
    assert engines.main([str(tmp_path), *out]) == 2


def test_each_process_reads_its_share(in_empty_folder, labelled_folder, capsys):
    from benchmarks import data_parallel

    arguments = ["--processes", "1,2", "--method", "tent", "--batch-size", "4", "--steps", "2"]
    arguments += ["--size", "96x48", "--images", str(labelled_folder / "images")]
    assert data_parallel.main([*arguments, "--no-cache", "--out", "rows.jsonl"]) == 0
    rows = read_rows(in_empty_folder / "rows.jsonl")
    assert [row.way for row in rows] == ["1 process", "2 processes"]
    one, two = (row.figures for row in rows)
    assert one["decoded_to_check"] == [one["images"]]
    assert sum(two["decoded_to_check"]) == one["images"]
    assert max(two["decoded_to_check"]) == -(-one["images"] // 2)
    assert one["decoded_in_steps"] == [8]
    assert two["decoded_in_steps"] == [4, 4]
    assert "| 2 processes | " in capsys.readouterr().out


def test_processes_that_fail_are_one_line(in_empty_folder, capsys):
    from benchmarks import data_parallel

    assert data_parallel.main(["--method", "nosuch"]) == 2
    assert "nosuch" in capsys.readouterr().err
    assert data_parallel.main(["--processes", "1", "--images", "nowhere"]) == 2
    assert "error: 1 process failed: exit code " in capsys.readouterr().err


def test_a_soak_that_is_ended_takes_its_stream_with_it():
    command = [sys.executable, "-m", "benchmarks.soak", "file"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            while (streaming := _stream_of(process.pid)) is None:
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 128 + signal.SIGTERM
        finally:
            process.kill()
    assert not streaming.exists()


def _stream_of(pid):
    """The folder in /proc of the stream that a soak has started, once it has threads."""
    with contextlib.suppress(OSError):  # one has ended, such as git
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found = Path(f"/proc/{child}")
            is_stream = b"runtime.stream" in (found / "cmdline").read_bytes()
            if is_stream and len(list((found / "task").iterdir())) > 2:
                return found
    return None


@pytest.mark.skipif(not can_serve(), reason=f"needs Debian's {NEEDED_PACKAGES}")
def test_a_camera_ends_with_the_process_that_began_it():
    with RtspCamera() as camera:
        camera.process.stdin.close()
        assert camera.process.wait(60) == 0


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
    assert rows["onnxruntime"]["latency"]["count"] == 5
    shown = capsys.readouterr().out
    for name, row in rows.items():
        assert name in shown
        assert row.get("did_not_run") or row["golden_agreement"] > 0.99


def test_a_stream_is_measured_beside_a_plain_loop(in_empty_folder, capsys):
    arguments = ["--frames", "6", "--rounds", "2", "--threads", "1", "--out", "rows.jsonl"]
    assert efficiency.main(arguments) == 0
    rows = {row.way: row.figures for row in read_rows(in_empty_folder / "rows.jsonl")}
    names = {"engine", "stream", "stream, video", "plain loop", "plain loop, video"}
    assert names | {"stream, spinning", "stream, video, spinning"} <= set(rows)
    assert all(rows[name]["per_second"] > 0 for name in names)
    assert rows["engine"]["share_of_engine"]["rounds"] == [1.0, 1.0]
    live = rows[efficiency.LIVE]
    assert live["asked_per_second"] == pytest.approx(0.8 * rows["stream"]["per_second"], abs=0.02)
    assert 0 <= live["dropped"] < live["read"] <= 6
    for name, library in (("stream", "ONNX Runtime"), ("stream on openvino", "OpenVINO")):
        assert name not in rows or rows[name]["backend"].startswith(library)
    parts = rows[efficiency.PROCESSOR]
    assert parts["outside_model_and_decoding_ms"] == pytest.approx(
        parts["to_rgb_ms"] + parts["resize_threads_queues_ms"], abs=2e-3
    )
    assert "| stream, video, spinning | " in capsys.readouterr().out


def test_training_is_measured_in_both_precisions(monkeypatch):
    from benchmarks import device_training

    monkeypatch.setattr(device_training, "BATCH_SIZE", 2)
    monkeypatch.setattr(device_training, "WARM_UP_STEPS", 1)
    monkeypatch.setattr(device_training, "MOST_STEPS", 2)
    variants = [("fp32", False), ("fp16", False)]
    rows = list(device_training.measure_training("cpu", variants, size_hw=(48, 96)))
    assert rows[0]["steps"] == 2
    assert rows[0]["images_per_second"] == pytest.approx(2000 / rows[0]["step_ms"], rel=0.01)
    assert "fp16 needs a CUDA GPU" in rows[1]["did_not_run"]
    late = device_training.measure_training("cpu", [("fp32", True)], end_s=0)
    assert list(late) == [
        {"precision": "fp32", "compiled": True, "did_not_run": "no time was left"}
    ]


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
