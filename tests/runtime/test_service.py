"""What systemd is told, and the unit that it reads."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from runtime import stream
from runtime.frames import Frame, Segmentation
from runtime.sinks.service import Service, ServiceSink
from runtime.sources.watchdog import State

UNIT = Path(__file__).parents[2] / "examples/sfda-edge-stream.service"


@pytest.fixture
def manager(tmp_path, monkeypatch):
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("WATCHDOG_USEC", "100000")
        yield listener


def heard(manager):
    """As long as there is something to hear; what found no room is lost."""
    messages, limit_s = [], time.monotonic() + 5
    manager.setblocking(False)
    while time.monotonic() < limit_s:
        try:
            messages.append(manager.recv(1000).decode())
        except BlockingIOError:
            break
    return messages


def test_ready_comes_with_the_first_result_and_frames_feed_the_watchdog(manager, in_empty_folder):
    assert stream.main(["streetsynth", "--frames", "30"]) == 0
    first, *others = heard(manager)
    assert first == "READY=1\nSTATUS=the source is live"
    assert others
    assert set(others) <= {"WATCHDOG=1", "STOPPING=1", "STATUS=the source is ended"}


def test_a_manager_that_does_not_listen_holds_nothing_up(manager, in_empty_folder, monkeypatch):
    """Its queue takes about ten messages."""
    monkeypatch.setenv("WATCHDOG_USEC", "4")
    assert stream.main(["streetsynth", "--frames", "15"]) == 0


def test_what_does_not_open_is_never_ready(manager, in_empty_folder):
    assert stream.main(["camera57"]) == 2
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(1000)


def test_logs_as_json(in_empty_folder, capfd):
    import sys

    command = [sys.executable, "-m", "runtime.stream", "streetsynth", "--frames", "2"]
    done = subprocess.run([*command, "--log-format", "json"], capture_output=True, text=True)
    entries = [json.loads(line) for line in done.stderr.splitlines()]
    assert {"time", "level", "logger", "message"} == set(entries[0])
    assert any("golden frame 100.00 %" in entry["message"] for entry in entries)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_no_fault_with_the_unit(tmp_path):
    program = tmp_path / "sfda-edge"
    program.write_text("")
    program.chmod(0o755)
    text = UNIT.read_text().replace("/opt/sfda-edge/bin/sfda-edge", str(program))
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace("User=sfda-edge", "User=root"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def two_sources():
    return {name: SimpleNamespace(state=State.LIVE, hangs=False) for name in ("front", "rear")}


def test_every_source_feeds_the_watchdog(manager):
    service = Service(str(manager.getsockname()), two_sources())
    sinks = {name: ServiceSink(service, name) for name in ("front", "rear")}
    service._every_s = 1e-9
    service.state("front", "live")
    assert heard(manager) == [], "not ready before the last source"
    service.state("rear", "live")
    assert heard(manager) == ["READY=1\nSTATUS=front is live, rear is live"]
    for _ in range(3):
        service.frame("front")
    assert heard(manager) == [], "the rear camera hangs"
    service.frame("rear")
    assert heard(manager) == ["WATCHDOG=1"]
    sinks["rear"].close()
    assert heard(manager) == ["STATUS=front is live, rear is ended"]
    service.frame("front")
    assert heard(manager) == ["WATCHDOG=1"], "one that has ended is not waited for"
    sinks["front"].close()
    sinks["front"].close()
    assert heard(manager) == ["STOPPING=1"]


@pytest.mark.parametrize("away", [State.LOST, State.OPENING])
def test_a_source_that_is_opened_again_takes_the_others_not_down(manager, away):
    sources = two_sources()
    service = Service(str(manager.getsockname()), sources)
    service._every_s = 1e-9
    for name in ("front", "rear"):
        service.state(name, "live")
        service.frame(name)
    sources["rear"].state = away
    heard(manager)
    service.frame("front")
    assert heard(manager) == ["WATCHDOG=1"]
    sources["rear"].state = State.LIVE
    service.frame("front")
    heard(manager)
    service.frame("front")
    assert heard(manager) == [], "it is back, and is waited for again"
    image = np.zeros((4, 4, 3), np.uint8)
    missing = Segmentation(
        frame=Frame(0, image, 0), label_map=image[..., 0], timing={}, repeated=True, state=str(away)
    )
    sinks = [ServiceSink(service, name) for name in ("front", "rear")]
    for name, sink in zip(("front", "rear"), sinks, strict=True):
        sources[name].state = away
        sink.write(missing)
    assert "WATCHDOG=1" not in heard(manager), "with none, a start may help"
    for sink in sinks:
        sink.close()


def test_a_source_that_hangs_in_its_library_is_waited_for(manager):
    """It is lost and opened no more: a start is what helps."""
    sources = two_sources()
    service = Service(str(manager.getsockname()), sources)
    service._every_s = 1e-9
    for name in ("front", "rear"):
        service.state(name, "live")
        service.frame(name)
    sources["rear"].state, sources["rear"].hangs = State.LOST, True
    heard(manager)
    service.frame("front")
    assert heard(manager) == []
    sources["rear"].hangs = False
    service.frame("front")
    assert heard(manager) == ["WATCHDOG=1"]
    for name in ("front", "rear"):
        service.ended(name)


def test_a_source_that_fails_before_its_first_result_leaves_the_others_ready(manager):
    service = Service(str(manager.getsockname()), two_sources())
    service.state("front", "live")
    assert heard(manager) == []
    ServiceSink(service, "rear").close()
    assert heard(manager) == ["READY=1\nSTATUS=front is live, rear is ended"]
    ServiceSink(service, "front").close()


def test_a_source_that_is_lost_before_its_first_result_leaves_the_others_ready(manager):
    """systemd would end a service that is not ready in time, and the healthy camera with it."""
    sources = two_sources()
    service = Service(str(manager.getsockname()), sources)
    service.state("front", "live")
    service.frame("front")
    assert heard(manager) == []
    sources["rear"].state = State.LOST
    service.frame("front")
    assert heard(manager)[0] == "READY=1\nSTATUS=front is live, rear is lost"
    service.state("rear", "live")
    assert heard(manager) == ["STATUS=front is live, rear is live"]
    for name in sources:
        service.ended(name)
