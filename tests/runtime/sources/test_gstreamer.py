"""Real GStreamer pipelines in child processes that crash, hang and are ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import stream
from runtime.errors import SourceError
from runtime.sources.grammar import open_source
from runtime.sources.gstreamer import PipelineOpener, csi_words, pipeline_words
from runtime.sources.names import pipeline_name, shown_name
from runtime.sources.reconnect import _Connection
from runtime.sources.settings import SourceSettings
from runtime.sources.watchdog import State, WatchdogLimits

pytest.importorskip("av", reason="extra video")
needs_gstreamer = pytest.mark.skipif(
    shutil.which("gst-launch-1.0") is None, reason="needs gstreamer1.0-tools"
)
LIMITS = WatchdogLimits(stale_s=0.5, lost_s=1.0)
LIVE = "videotestsrc is-live=true pattern=smpte ! video/x-raw,width=160,height=120,framerate=50/1"


def children():
    """Process numbers of the gst-launch processes that this one has started."""
    command = ["pgrep", "-P", str(os.getpid()), "-f", "gst-launch"]
    return [int(line) for line in subprocess.run(command, capture_output=True).stdout.split()]


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        ("rtspsrc location=rtsp://a:hunter2@b/1", True),
        ("rtspsrc location=rtsp://b/1 user-id=bob user-pw=hunter2", True),
        ("rtspsrc location=rtsp://b/realmonitor?channel=1&subtype=0#x user-id=bob", False),
        ("v4l2src device=/dev/video0", False),
    ],
)
def test_a_password_that_every_user_of_the_machine_sees_is_said_once(words, warned, caplog):
    opener = PipelineOpener("camera", pipeline_words(words))
    assert ("every user of this machine sees the password" in caplog.text) == warned
    assert "hunter2" not in caplog.text
    assert opener


@needs_gstreamer
@pytest.mark.parametrize("size_hw", [(50, 98), (51, 97), (480, 854)])
def test_its_frames_are_those_of_the_pipeline(size_hw):
    height, width = size_hw
    red = "videotestsrc num-buffers=5 pattern=red ! "
    red += f"video/x-raw,format=RGB,width={width},height={height},framerate=25/1"
    with PipelineOpener("red", pipeline_words(red))() as source:
        frames = [source.read() for _ in range(5)]
        with pytest.raises(SourceError, match="red ended after 5 frames"):
            source.read()
    assert [frame.index for frame in frames] == list(range(5))
    if width % 2:  # scaled to an even size, as the layout of its pixels needs
        height, width = height - 1, width - 1
    assert frames[0].image.shape == (height, width, 3)
    red_pixels = np.broadcast_to([255, 0, 0], (height, width, 3))
    np.testing.assert_allclose(frames[4].image, red_pixels, atol=30)
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(5) / 25, abs=2e-3)
    grey = frames[3].sample()  # that was not converted
    assert grey.shape == (-(-height // 8), -(-width // 8))
    np.testing.assert_allclose(grey, frames[4].image[0, 0] @ [0.299, 0.587, 0.114], atol=16)
    assert all(frame.age_ms < 5000 for frame in frames)
    assert not children()


def test_a_pipeline_is_called_by_its_elements():
    """Not by their properties, which may be secrets in anybody's notation."""
    text = 'souphttpsrc location=http://a/b cookies="s=hunter2" x="Basic hunter2" ! image/jpeg,a=1'
    found = pipeline_name(pipeline_words(f"{text} ! jpegdec"))
    assert found == shown_name(f"gst:{text} ! jpegdec") == "gst:souphttpsrc ! image/jpeg ! jpegdec"
    assert shown_name("gst:a x='hunter2") == "gst:"
    assert shown_name("rtsp://a:hunter2@b/1") == "rtsp://…@b/1"


@needs_gstreamer
def test_no_output_has_a_pipelines_properties(in_empty_folder, capfd, caplog):
    caplog.set_level("INFO")
    pipeline = 'gst:videotestsrc num-buffers=20 ! taginject tags="title=hunter2" ! identity'
    Path("stream.toml").write_text(
        f"[[source]]\nfrom = '{pipeline}'\njsonl = 'a.jsonl'\nframes = 2\n"
    )
    assert stream.main(["--config", "stream.toml"]) == 0
    assert stream.main([pipeline, "--jsonl", "b.jsonl", "--frames", "2"]) == 0
    said = capfd.readouterr()
    assert "gst:videotestsrc ! taginject ! identity" in caplog.text
    assert "hunter2" not in said.out + said.err + caplog.text
    for name in ("a.jsonl", "b.jsonl"):
        (source,) = {json.loads(line)["source"] for line in Path(name).read_text().splitlines()}
        assert source == "gst:videotestsrc ! taginject ! identity"


@needs_gstreamer
def test_a_start_that_fails_leaves_no_descriptor(monkeypatch):
    def no_memory(*_arguments, **_settings):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("subprocess.Popen", no_memory)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(OSError, match="Cannot allocate"):
            PipelineOpener("x", pipeline_words("videotestsrc"))()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@needs_gstreamer
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_a_child_that_crashes_or_hangs_is_started_again(blow):
    with open_source(f"gst:{LIVE}", SourceSettings(limits=LIMITS)) as source:
        for _ in range(5):
            source.read()
        (first,) = children()
        assert os.getsid(first) == first, "a Ctrl-C in the terminal is for us alone"
        os.kill(first, blow)
        start_s = time.monotonic()
        while source.reconnects == 0:
            source.read()
        assert time.monotonic() - start_s < 6
        assert source.read().state == State.LIVE
        (second,) = children()
        assert second != first
    assert not children(), "no child is left behind"


@needs_gstreamer
def test_a_wrong_pipeline_is_named_and_no_shell_reads_it(in_empty_folder):
    with pytest.raises(SourceError, match=r'gives no picture: .*no element "nosuch'):
        open_source("gst:nosuchelement ! tee", SourceSettings())
    for text in ("videotestsrc num-buffers=1 ; touch mark", "$(touch mark)", "`touch mark`"):
        with pytest.raises(SourceError, match="gives no picture"):
            open_source(f"gst:{text}", SourceSettings())
    assert not list(in_empty_folder.iterdir())
    assert not children()


@pytest.mark.slow
@needs_gstreamer
def test_a_pipeline_without_pictures_is_given_up_and_shows_no_password(monkeypatch):
    text = "fakesrc is-live=true do-timestamp=true name=rtsp://me:hunter2@cam ! fakesink sync=true "
    text += "videotestsrc num-buffers=0"
    with pytest.raises(SourceError, match="gives no picture") as raised:
        open_source(f"gst:{text}", SourceSettings())
    assert "hunter2" not in str(raised.value)
    assert not children()


@given(st.text(max_size=60))
def test_any_text_is_a_pipeline_or_an_error(text):
    try:
        words = pipeline_words(text)
    except SourceError:
        return
    assert words
    assert all(isinstance(word, str) for word in words)


@pytest.fixture
def board(tmp_path, monkeypatch):
    """``board(elements)``: a gst-inspect that knows only these."""

    def make(*elements):
        program = tmp_path / "gst-inspect-1.0"
        known = " | ".join(elements) or "nothing"
        program.write_text(f'#!/bin/sh\ncase "$2" in {known}) exit 0;; *) exit 1;; esac\n')
        program.chmod(program.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return make


def test_a_jetsons_camera_has_its_size_and_rate(board):
    board("nvarguscamerasrc")
    words = csi_words(1, SourceSettings(size_hw=(720, 1280), fps=30))
    assert words[:2] == ["nvarguscamerasrc", "sensor-id=1"]
    assert "video/x-raw(memory:NVMM),width=1280,height=720,framerate=30000/1000" in words
    assert words[-1] == "nvvidconv"


def test_a_raspberry_pis_camera_is_the_first_one(board):
    board("libcamerasrc")
    assert csi_words(0, SourceSettings()) == ["libcamerasrc", "!", "video/x-raw"]
    with pytest.raises(SourceError, match="csi1: this GStreamer has no nvarguscamerasrc"):
        csi_words(1, SourceSettings())


def test_a_machine_without_gstreamer_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match=r"apt install gstreamer1\.0-tools"):
        open_source("gst:videotestsrc", SourceSettings())
    with pytest.raises(SourceError, match="csi0: this GStreamer has no"):
        open_source("csi0", SourceSettings())


def test_no_pipeline_is_an_error():
    for text in ("", "  ", "'"):
        with pytest.raises(SourceError, match="gst:"):
            open_source(f"gst:{text}", SourceSettings())


@needs_gstreamer
def test_a_child_that_is_still_opening_does_not_outlive_us():
    silent = "fakesrc is-live=true ! fakesink videotestsrc num-buffers=0"
    opener = PipelineOpener("silent", pipeline_words(silent))
    connection = _Connection(opener)
    end_s = time.monotonic() + 5
    while not children() and time.monotonic() < end_s:
        time.sleep(0.05)
    assert children()
    connection.abandon(3)
    assert not connection.hangs
    assert not children()


@needs_gstreamer
def test_the_error_is_found_behind_much_talk(monkeypatch, tmp_path):
    program = tmp_path / "gst-launch-1.0"
    lines = "for i in $(seq 3000); do echo talk $i; done; echo ERROR: no camera; exit 1"
    program.write_text(f"#!/bin/sh\n{lines}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SourceError, match="gives no picture: ERROR: no camera"):
        open_source("gst:videotestsrc", SourceSettings())


def test_what_a_board_cannot_be_asked_is_an_error(board):
    board("nvarguscamerasrc")
    with pytest.raises(SourceError, match="--format is for cameras on USB"):
        csi_words(0, SourceSettings(pixel_format="MJPG"))
