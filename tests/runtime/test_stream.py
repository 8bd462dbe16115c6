"""The program itself, as a process."""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from runtime import stream
from runtime.packaged import BUNDLE_DIR, CLIP, CLIP_DIR
from runtime.sources.grammar import open_source


def frames_of(path) -> int:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


def test_a_file_is_streamed_saved_and_described(in_empty_folder, capsys):
    arguments = ["streetsynth", "--save", "out.mp4", "--jsonl", "out.jsonl", "--frames", "12"]
    assert stream.main(arguments) == 0
    assert frames_of("out.mp4") == 12
    lines = [json.loads(line) for line in (in_empty_folder / "out.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(12))
    assert sum(lines[0]["class_share"].values()) == pytest.approx(1, abs=1e-3)
    summary = capsys.readouterr().out
    assert "12 read, 12 segmented, 0 dropped" in summary
    assert all(stage in summary for stage in ("read", "queue", "resize", "infer", "output", "age"))


def test_camera0_without_a_camera_is_exit_code_2(in_empty_folder, capsys):
    assert stream.main(["camera57"]) == 2
    assert "camera57 does not open" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["streetsynth", "--bundle", "nowhere"], "nowhere does not exist"),
        (
            ["streetsynth", "--backend", "magic"],
            "unknown backend 'magic'; known: auto, tensorrt",
        ),
        (["streetsynth", "--save", "out.gif"], "use one of .mp4"),
        (["streetsynth", "--save", "no/such/out.mp4"], "does not exist"),
        (["streetsynth", "--jsonl", "no/such/file"], "cannot write no/such/file"),
        (["streetsynth", "--show"], "needs a display"),
        (
            ["streetsynth", "--record", "%Y.mcap", "--split-minutes", "1e11"],
            "--split-minutes 1e+11: a file would end after the last date",
        ),
    ],
)
def test_what_the_user_has_to_change_is_exit_code_2(
    in_empty_folder, capsys, monkeypatch, arguments, message
):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert stream.main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--save", "--jsonl"])
@pytest.mark.parametrize("name", ["bundle/manifest.json", "bundle/new.mp4", "link.mp4"])
def test_the_bundle_is_never_written_to(in_empty_folder, capsys, flag, name):
    shutil.copytree(BUNDLE_DIR, "bundle")
    os.link("bundle/model.onnx", "link.mp4")
    before = {path.name: path.read_bytes() for path in Path("bundle").iterdir()}
    assert stream.main(["streetsynth", "--bundle", "bundle", flag, name]) == 2
    assert "is in the bundle" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in Path("bundle").iterdir()} == before


@pytest.mark.parametrize("flag", ["--save", "--jsonl"])
def test_the_source_is_never_written_over(in_empty_folder, capsys, flag):
    drive = in_empty_folder / "drive.mp4"
    drive.write_bytes(CLIP.read_bytes())
    assert stream.main(["drive.mp4", flag, str(drive)]) == 2
    assert "is in the source" in capsys.readouterr().err
    assert drive.read_bytes() == CLIP.read_bytes()


def test_a_full_disk_is_said_of_json_lines_too(in_empty_folder, capsys):
    assert stream.main(["streetsynth", "--jsonl", "/dev/full", "--frames", "3"]) == 2
    assert "cannot write /dev/full: No space left" in capsys.readouterr().err


def test_the_folders_bundle_goes_before_the_packaged_one(in_empty_folder, caplog):
    caplog.set_level("INFO")
    assert stream.choose_bundle(None) == BUNDLE_DIR
    (in_empty_folder / "bundle").mkdir()
    assert stream.choose_bundle(None) == stream.OWN_BUNDLE
    assert "the packaged StreetSynth model" in caplog.messages[0]
    assert "./bundle" in caplog.messages[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_stream_with_a_playable_video(tmp_path, number):
    """A folder of many links to one picture stands for a long drive."""
    drive = tmp_path / "drive"
    drive.mkdir()
    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), np.zeros((120, 160, 3), np.uint8))
    for index in range(3000):
        (drive / f"{index:05d}.png").symlink_to(picture)
    command = [sys.executable, "-m", "runtime.stream", str(drive), "--save", "out.mp4"]
    with subprocess.Popen(
        [*command, "--jsonl", "out.jsonl"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        wait_for_lines(tmp_path / "out.jsonl")
        process.send_signal(number)
        summary, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    written = len((tmp_path / "out.jsonl").read_text().splitlines())
    assert 0 < written < 3000
    assert frames_of(tmp_path / "out.mp4") == written
    assert f"{written} segmented" in summary


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_kill_loses_less_than_a_second_of_video(tmp_path, suffix):
    """A folder's video has 15 pictures a second, whatever time their segmentation takes."""
    drive = tmp_path / "drive"
    drive.mkdir()
    cv2.imwrite(str(tmp_path / "picture.png"), np.full((120, 160, 3), 90, np.uint8))
    for index in range(3000):
        (drive / f"{index:05d}.png").symlink_to(tmp_path / "picture.png")
    command = [sys.executable, "-m", "runtime.stream", str(drive), "--save", f"out{suffix}"]
    with subprocess.Popen([*command, "--jsonl", "out.jsonl"], cwd=tmp_path) as process:
        wait_for_lines(tmp_path / "out.jsonl", 30)
        process.kill()
    written = len((tmp_path / "out.jsonl").read_text().splitlines())
    assert frames_of(tmp_path / f"out{suffix}") >= written - 4


def wait_for_lines(path, count=1, limit_s=60.0):
    start_s = time.monotonic()
    while not (path.exists() and path.read_bytes().count(b"\n") >= count):
        assert time.monotonic() - start_s < limit_s, "the stream wrote too little"
        time.sleep(0.05)


def test_json_lines_on_standard_output_stay_json(in_empty_folder, capsys):
    assert stream.main(["streetsynth", "--jsonl", "-", "--frames", "3"]) == 0
    assert len([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == 3


@pytest.mark.parametrize("words", ["--frames 3 | true", "--loop --frames 3000 --jsonl - | head -2"])
def test_a_reader_that_goes_away_is_no_error(in_empty_folder, words):
    command = f"{sys.executable} -m runtime.stream streetsynth {words}; exit $PIPESTATUS"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "rror" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_stream_whose_lines_nobody_reads(in_empty_folder, number):
    command = [sys.executable, "-m", "runtime.stream", "streetsynth", "--loop", "--jsonl", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
        assert json.loads(process.stdout.readline())["frame"] == 0
        time.sleep(2)  # the pipe is full: a line has more than 500 bytes
        process.send_signal(number)
        assert process.wait(20) == 0
        rest = process.stdout.read()
    *whole, _last = rest.splitlines()
    assert all(json.loads(line) for line in whole)


def test_a_socket_that_nobody_reads_is_left_as_a_pipe_is(in_empty_folder):
    """Node gives its child processes sockets."""
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    command = [sys.executable, "-m", "runtime.stream", "streetsynth", "--loop", "--jsonl", "-"]
    with ours, subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL) as process:
        theirs.close()
        assert ours.recv(1)
        time.sleep(2)  # until it is full
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_what_is_ignored_stays_ignored(in_empty_folder):
    """As nohup starts a program."""
    command = [sys.executable, "-m", "runtime.stream", "streetsynth", "--loop", "--jsonl", "out"]
    ignoring = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with subprocess.Popen(command, preexec_fn=ignoring, stdout=subprocess.PIPE) as process:
        wait_for_lines(in_empty_folder / "out")
        process.send_signal(signal.SIGHUP)
        before = len((in_empty_folder / "out").read_bytes())
        time.sleep(1)
        assert process.poll() is None
        assert len((in_empty_folder / "out").read_bytes()) > before
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_the_packaged_clip_has_a_label_a_frame():
    assert frames_of(CLIP) == len(list((CLIP_DIR / "labels").glob("*.png"))) == 72


def test_the_command_is_the_module(in_empty_folder):
    """And it runs no file of the working directory."""
    (in_empty_folder / "cv2.py").write_text("raise SystemExit('the wrong cv2')")
    program = Path(sys.executable).with_name("sfda-edge")
    done = subprocess.run(
        [program, "stream", "streetsynth", "--frames", "2"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "2 read, 2 segmented" in done.stdout


@pytest.mark.parametrize("wrong", [["--save", "x.gif"], ["--serve", "10.0.0.1:80"], ["--show"]])
def test_an_output_that_does_not_open_empties_no_other(in_empty_folder, monkeypatch, wrong):
    monkeypatch.delenv("SFDA_EDGE_TOKEN", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    for name in ("old.jsonl", "old.mcap"):
        (in_empty_folder / name).write_text("kept")
    arguments = ["streetsynth", "--jsonl", "old.jsonl", "--record", "old.mcap", *wrong]
    assert stream.main(arguments) == 2
    for name in ("old.jsonl", "old.mcap"):
        assert (in_empty_folder / name).read_text() == "kept"


@pytest.mark.parametrize("opened", ["stream._open_model", "sources.grammar.open_source"])
def test_a_signal_while_it_opens_leaves_earlier_files(in_empty_folder, monkeypatch, opened):
    """Whoever stops a start has seen that it is the wrong one."""
    for name in ("old.jsonl", "old.mcap"):
        (in_empty_folder / name).write_text("kept")
    module, name = f"runtime.{opened}".rsplit(".", 1)
    open_it = getattr(importlib.import_module(module), name)

    def interrupted(*args, **named):
        os.kill(os.getpid(), signal.SIGTERM)
        return open_it(*args, **named)

    if opened.endswith("model"):
        monkeypatch.setattr("runtime.sources.grammar.open_source", None)  # none is opened any more
    monkeypatch.setattr(f"{module}.{name}", interrupted)
    assert stream.main(["streetsynth", "--jsonl", "old.jsonl", "--record", "old.mcap"]) == 0
    for name in ("old.jsonl", "old.mcap"):
        assert (in_empty_folder / name).read_text() == "kept"


def test_json_lines_for_a_closed_standard_output_are_an_error(in_empty_folder):
    command = f"{sys.executable} -m runtime.stream streetsynth --frames 1 --jsonl - >&-"
    done = subprocess.run(["bash", "-c", command], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert "standard output is closed" in done.stderr


@pytest.mark.parametrize("threads", ["99999999999", "2000000000", "9" * 5000, "-1"])
def test_a_number_of_threads_has_bounds(threads, capsys):
    with pytest.raises(SystemExit):
        stream.main(["streetsynth", "--threads", threads])
    assert "expected a whole number from 0 to 1024" in capsys.readouterr().err


def test_a_folder_of_a_name_that_is_no_text_has_a_page(in_empty_folder):
    pytest.importorskip("starlette", reason="extra serve")
    folder = os.fsencode(in_empty_folder) + b"/dir\xff"
    Path(os.fsdecode(folder)).mkdir()
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(os.fsdecode(folder) + "/0.png")
    with open_source(os.fsdecode(folder)) as source:
        source.name.encode()
        assert source.name.endswith("dir\\udcff")
        assert source.read().image.ndim == 3


def test_every_result_of_a_file_is_live_to_the_last(in_empty_folder):
    assert stream.main(["streetsynth", "--jsonl", "out.jsonl"]) == 0
    lines = [json.loads(line) for line in (in_empty_folder / "out.jsonl").read_text().splitlines()]
    assert {line["state"] for line in lines} == {"live"}
