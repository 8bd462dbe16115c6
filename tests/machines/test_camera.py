"""A real V4L2 device, the kernel's vivid camera: ``make test-camera`` runs this in QEMU.

vivid can drop buffers, disconnect, and fail when it is asked to start; its controls do that here.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from runtime import stream
from runtime.errors import SourceError
from runtime.sources.grammar import open_source
from runtime.sources.settings import SourceSettings
from runtime.sources.watchdog import State, WatchdogLimits

pytestmark = pytest.mark.skipif(
    os.environ.get("SFDA_EDGE_CAMERA") != "vivid", reason="needs the machine of make test-camera"
)
SMALL = {"size_hw": (180, 320), "fps": 15}


def control(name, value):
    subprocess.run(["v4l2-ctl", "-d", "/dev/video0", "-c", f"{name}={value}"], check=True)


@pytest.fixture(autouse=True)
def healthy():
    yield
    control("percentage_of_dropped_buffers", 0)


def settings(**changes):
    limits = WatchdogLimits(stale_s=1.0, lost_s=4.0)
    return SourceSettings(**{**SMALL, "limits": limits, **changes})


def test_the_camera_has_the_size_the_format_and_the_rate_that_were_asked_for(caplog):
    caplog.set_level(logging.INFO)
    with open_source("camera0", settings(pixel_format="YUYV")) as source:
        frames = [source.read() for _ in range(6)]
    assert all(frame.image.shape == (180, 320, 3) for frame in frames)
    assert source.live
    assert source.fps == pytest.approx(15, abs=0.5)
    assert not any("it gives" in message for message in caplog.messages)
    pictures = np.stack([frame.image for frame in frames])
    assert pictures.std() > 20, "vivid shows coloured bars"
    assert np.abs(np.diff(pictures.astype(int), axis=0)).max() > 0, "with a counter that runs"


def test_what_the_camera_refuses_is_said(caplog):
    caplog.set_level(logging.INFO)
    with open_source("camera0", settings(size_hw=(333, 555), fps=17, pixel_format="MJPG")):
        pass
    said = " ".join(caplog.messages)
    assert "asked for MJPG, it gives" in said
    assert "asked for 555x333, it gives" in said


def test_a_name_that_stays_the_same_opens_it():
    links = sorted(Path("/dev/v4l").rglob("*")) if Path("/dev/v4l").exists() else []
    if not links:  # udev makes them
        folder = Path("/dev/v4l/by-id")
        folder.mkdir(parents=True)
        (folder / "vivid-000-index0").symlink_to("/dev/video0")
    with open_source("/dev/v4l/by-id/vivid-000-index0", settings()) as source:
        assert source.read().image.shape == (180, 320, 3)


def test_dropped_buffers_leave_a_stream_that_goes_on():
    control("percentage_of_dropped_buffers", 60)
    with open_source("camera0", settings()) as source:
        frames = [source.read() for _ in range(8)]
    assert [frame.index for frame in frames] == list(range(8))


def test_no_buffers_at_all_are_stale_then_lost_and_it_comes_back():
    with open_source("camera0", settings()) as source:
        for _ in range(3):
            source.read()
        control("percentage_of_dropped_buffers", 100)
        came, ended = [], threading.Event()

        def read_on():
            while not ended.is_set():
                came.append((time.monotonic(), source.read()))

        reader = threading.Thread(target=read_on, daemon=True)
        reader.start()
        seen, end_s = set(), time.monotonic() + 25
        while time.monotonic() < end_s and State.LOST not in seen:
            seen.add(source.state)
            time.sleep(0.1)
        assert {State.STALE, State.LOST} <= seen
        control("percentage_of_dropped_buffers", 0)
        start_s = time.monotonic()
        while came[-1][0] < start_s and time.monotonic() - start_s < 30:
            time.sleep(0.1)
        ended.set()
        assert came[-1][1].state == State.LIVE
        print(f"live {came[-1][0] - start_s:.1f} s after buffers came again")


def test_a_camera_that_is_not_there_names_those_that_are():
    with pytest.raises(SourceError, match=r"camera9 does not open; this machine has /dev/video0"):
        open_source("camera9", settings())


def test_the_whole_stream_runs(tmp_path, capsys):
    lines = tmp_path / "out.jsonl"
    command = ["camera0", "--size", "320x180", "--fps", "15", "--frames", "5"]
    command += ["--backend", "onnxruntime", "--jsonl", str(lines)]
    assert stream.main([*command, "--save", str(tmp_path / "out.mp4")]) == 0
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len([record for record in records if not record["repeated"]]) == 5
    assert "5 segmented" in capsys.readouterr().out
    assert (tmp_path / "out.mp4").stat().st_size > 1000


def test_a_camera_that_is_unplugged_is_lost_at_once_and_holds_nothing_up():
    """The last test: vivid stays disconnected. That it is opened again is shown above."""
    with open_source("camera0", settings()) as source:
        for _ in range(3):
            source.read()
        control("disconnect", 1)
        ended = threading.Event()

        def read_on():
            while not ended.is_set() and source.read() is not None:
                pass

        reader = threading.Thread(target=read_on, daemon=True)
        reader.start()
        seen, start_s = set(), time.monotonic()
        while State.LOST not in seen and time.monotonic() - start_s < 20:
            seen.add(source.state)
            time.sleep(0.05)
        assert State.LOST in seen
        ended.set()
        start_s = time.monotonic()
        source.close()
        reader.join(10)
        assert not reader.is_alive()
        assert time.monotonic() - start_s < 5
