"""Recordings in the viewers that they are made for: ``make test-viewers`` installs Rerun and
Foxglove's library, which are too large for every run, and runs this.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from mcap.reader import make_reader

foxglove = pytest.importorskip("foxglove.messages", reason="needs make test-viewers")
RERUN = Path(sys.executable).with_name("rerun")
STREAM = [sys.executable, "-m", "runtime.stream", "streetsynth", "--threads", "1"]
FRAMES = 12


def rerun(*arguments):
    environment = {**os.environ, "NO_COLOR": "1"}
    command = [str(RERUN), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pictures(recording, folder, *options):
    """What Rerun finds in a recording: its number of images, and of their times of capture."""
    converted = folder / "recording.rrd"
    rerun("mcap", "convert", *options, recording, "-o", converted)
    stats = rerun("rrd", "stats", converted)
    return [
        int(re.search(rf"^{name}: (\d+)$", stats, re.MULTILINE).group(1))
        for name in ("EncodedImage:blob", "timestamp")
    ]


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("recording") / "drive.mcap"
    subprocess.run([*STREAM, "--frames", str(FRAMES), "--record", path], check=True, timeout=120)
    return path


def test_rerun_reads_every_picture_with_its_time(recording, tmp_path):
    assert pictures(recording, tmp_path) == [3 * FRAMES, 3 * FRAMES]


def test_rerun_finds_no_fault(recording):
    checked = rerun("mcap", "check", "--full", recording)
    states = re.findall(r"^(\w+) +\d+ +\d+ +/\w+", checked, re.MULTILINE)
    assert states == ["ok"] * 4, checked


def test_rerun_recovers_what_a_killed_stream_had_written(tmp_path):
    path = tmp_path / "killed.mcap"
    process = subprocess.Popen([*STREAM, "--loop", "--record", path])
    try:
        end_s = time.monotonic() + 60
        while not path.exists() or path.stat().st_size < 1_000_000:
            assert time.monotonic() < end_s
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    images, times = pictures(path, tmp_path, "--recover")
    assert images == times >= 3


@pytest.mark.parametrize("topic", ["/input", "/labels", "/overlay"])
def test_foxglove_writes_the_same_bytes(recording, topic):
    """Foxglove's own library encodes the same picture as we did."""
    with recording.open("rb") as file:
        schema, _, message = next(make_reader(file).iter_messages(topics=[topic]))
    ours = CompressedImage.FromString(message.data)
    theirs = foxglove.CompressedImage(
        timestamp=foxglove.Timestamp(ours.timestamp.seconds, ours.timestamp.nanos),
        frame_id=ours.frame_id,
        data=ours.data,
        format=ours.format,
    )
    assert schema.name == theirs.get_schema().name
    assert theirs.encode() == message.data
