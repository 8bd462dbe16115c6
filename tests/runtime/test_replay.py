"""Recordings: read by MCAP's own reader, replayed, cut, damaged."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime import stream
from runtime.errors import SourceError
from runtime.packaged import CLIP, CLIP_DIR
from runtime.sources.grammar import open_source
from runtime.sources.replay import ReplaySource

pytest.importorskip("mcap", reason="extra record")
from mcap.reader import make_reader
from mcap_protobuf.decoder import DecoderFactory


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Twelve frames of the packaged clip."""
    path = tmp_path_factory.mktemp("recording") / "drive.mcap"
    assert stream.main(["streetsynth", "--record", str(path), "--frames", "12"]) == 0
    return path


def decoded(message):
    data = np.frombuffer(message.data, np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)


def test_mcaps_own_reader_finds_what_was_streamed(recording):
    found = {}
    with recording.open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        summary = reader.get_summary()
        metadata = {one.name: one.metadata for one in reader.iter_metadata()}
        for schema, channel, message, content in reader.iter_decoded_messages(
            topics=["/input", "/labels", "/overlay"]
        ):
            assert schema.name == "foxglove.CompressedImage"
            assert content.timestamp.ToNanoseconds() == message.log_time
            found.setdefault(channel.topic, []).append(decoded(content))
        results = [json.loads(message.data) for _, _, message in reader.iter_messages("/result")]
    assert summary.statistics.channel_message_counts == dict.fromkeys(summary.channels, 12)
    assert metadata["sfda_edge"]["precision"] == "fp32"
    assert [one["frame"] for one in results] == list(range(12))
    assert found["/overlay"][0].shape == (360, 480, 3)
    assert found["/input"][0].shape == (192, 384, 3)
    labels = cv2.imread(str(sorted((CLIP_DIR / "labels").glob("*.png"))[0]), -1)
    predicted = cv2.resize(found["/labels"][0], labels.shape[::-1], interpolation=0)
    assert (predicted == labels)[labels != 11].mean() > 0.3  # dusk, not adapted


def test_a_replay_is_identical(recording, capsys):
    assert stream.main([f"replay:{recording}"]) == 0
    assert "identical: all 12 label maps are as recorded" in capsys.readouterr().out


def test_label_maps_are_kept_only_for_who_compares_them(recording):
    with ReplaySource(recording) as source:
        while source.read() is not None:
            pass
        assert not source.labels


def test_a_replay_of_another_model_names_the_frames_that_differ(recording, tmp_path, capsys):
    """The labels of frame 5 are changed in the file, which MCAP's check sum does not cover."""
    from runtime.sinks import replay_check
    from runtime.sources.replay import ReplaySource

    with ReplaySource(recording) as source:
        check = replay_check.ReplayCheck(source)
        assert check.line() == "no frame was compared"
        for frame in iter(source.read, None):
            labels = source.labels[frame.index].copy()
            if frame.index == 5:
                labels[:19] = 200
            check.write(FakeResult(frame, labels))
    assert "different: 1 of 12" in check.line()
    assert "5 (9.90 %)" in check.line()


class FakeResult:
    def __init__(self, frame, label_map):
        self.frame, self.label_map = frame, label_map


def test_a_replay_takes_as_long_as_the_recording(recording):
    with recording.open("rb") as file:
        times = [m.log_time for _, _, m in make_reader(file).iter_messages("/labels")]
    start_s = time.monotonic()
    with open_source(f"replay:{recording}") as source:
        frames = list(iter(source.read, None))
    took_s = time.monotonic() - start_s
    assert took_s >= (times[-1] - times[0]) * 1e-9
    np.testing.assert_allclose(
        [frame.time_s for frame in frames], (np.array(times) - times[0]) * 1e-9, atol=1e-6
    )


@pytest.mark.slow
def test_a_kill_loses_less_than_a_second(tmp_path):
    drive = tmp_path / "drive"
    drive.mkdir()
    capture = cv2.VideoCapture(str(CLIP))
    cv2.imwrite(str(tmp_path / "picture.png"), capture.read()[1])
    for index in range(3000):
        (drive / f"{index:05d}.png").symlink_to(tmp_path / "picture.png")
    command = [sys.executable, "-m", "runtime.stream", str(drive), "--record", "drive.mcap"]
    with subprocess.Popen([*command, "--jsonl", "out.jsonl"], cwd=tmp_path) as process:
        lines = tmp_path / "out.jsonl"
        while not (lines.exists() and lines.read_bytes().count(b"\n") >= 30):
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    written = len(lines.read_text().splitlines())
    with open_source(f"replay:{tmp_path / 'drive.mcap'}") as source:
        replayed = sum(1 for _ in iter(source.read, None))
    assert replayed >= written - 3


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_gives_frames_or_an_error_with_the_files_name(recording, tmp_path, data):
    content = bytearray(recording.read_bytes())
    kind = data.draw(st.sampled_from(["cut", "byte", "zeros", "random"]))
    place = data.draw(st.integers(0, min(len(content) - 1, 400_000)))
    if kind == "cut":
        content = content[:place]
    elif kind == "byte":
        content[place] ^= data.draw(st.integers(1, 255))
    elif kind == "zeros":
        content[place : place + 200] = bytes(len(content[place : place + 200]))
    else:
        content = bytearray(data.draw(st.binary(max_size=300)))
    path = tmp_path / "damaged.mcap"
    path.write_bytes(content)
    try:
        with open_source(f"replay:{path}") as source:
            source._wait = lambda _at_ns: None
            frames = list(iter(source.read, None))
    except SourceError as error:
        frames = [f"named {error}"] if "damaged.mcap" in str(error) else []
    assert 1 <= len(frames) <= 12


def test_what_is_no_recording_is_an_error(tmp_path):
    for name, content in {"a.mcap": b"", "b.mcap": io.BytesIO(b"no").read()}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SourceError, match=name), open_source(f"replay:{tmp_path / name}") as it:
            it.read()
    with pytest.raises(SourceError, match=r"none\.mcap cannot be read: No such file"):
        open_source(f"replay:{tmp_path / 'none.mcap'}")


def test_a_recording_is_not_written_over_the_one_that_is_replayed(recording, tmp_path, capsys):
    path = shutil.copy(recording, tmp_path / "drive.mcap")
    assert stream.main([f"replay:{path}", "--record", str(path)]) == 2
    assert "is in the source" in capsys.readouterr().err
    assert path.read_bytes() == recording.read_bytes()


def test_a_full_disk_is_said(tmp_path, capsys, full_disk):
    with full_disk(300_000):
        assert stream.main(["streetsynth", "--record", str(tmp_path / "drive.mcap")]) == 2
    assert "what was written before can be read" in capsys.readouterr().err
    with open_source(f"replay:{tmp_path / 'drive.mcap'}") as source:
        assert source.read().image.shape == (192, 384, 3)


def test_a_replay_that_differs_is_exit_code_1(recording, monkeypatch, capsys):
    """A model that was exported anew, or another backend."""
    from runtime.backends.onnxruntime import OnnxRuntimeBackend

    right = OnnxRuntimeBackend.outputs
    monkeypatch.setattr(
        OnnxRuntimeBackend,
        "outputs",
        lambda self, image: {"label_map": right(self, image)["label_map"] + (image[0, 0, 0] > 0)},
    )
    monkeypatch.setattr("runtime.backends.golden_agreement", lambda _backend, _golden: 1.0)
    assert stream.main([f"replay:{recording}", "--backend", "onnxruntime"]) == 1
    assert "different: " in capsys.readouterr().out


def test_a_recording_that_was_cut_off_is_said(recording, tmp_path, caplog):
    path = tmp_path / "cut.mcap"
    path.write_bytes(recording.read_bytes()[:1_000_000])
    with open_source(f"replay:{path}") as source:
        assert 1 <= sum(1 for _ in iter(source.read, None)) < 12
    assert "was cut off" in caplog.text


def test_a_name_holds_the_time(in_empty_folder):
    assert stream.main(["streetsynth", "--frames", "1", "--record", "drive-%Y.mcap"]) == 0
    assert [path.name for path in in_empty_folder.iterdir()] == [
        f"drive-{time.strftime('%Y')}.mcap"
    ]
