"""A real RTSP server with a real H.264 stream, which is killed, stopped and frozen."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import numpy as np
import pytest

from benchmarks.rtsp_camera import NEEDED_PACKAGES, RtspCamera, can_serve
from runtime.errors import SourceError
from runtime.loss import LossPolicy
from runtime.pipeline import Pipeline
from runtime.sources.grammar import open_source
from runtime.sources.settings import SourceSettings
from runtime.sources.watchdog import State, WatchdogLimits

LIMITS = WatchdogLimits(stale_s=0.5, lost_s=1.5, frozen_s=1.0, black_s=0.5)


pytestmark = [
    pytest.mark.skipif(not can_serve(), reason=f"needs Debian's {NEEDED_PACKAGES}"),
    pytest.mark.slow,
]


@pytest.fixture
def camera():
    server = RtspCamera()
    yield server
    server.kill()


@pytest.fixture
def source(camera):
    with open_source(camera.url, SourceSettings(limits=LIMITS)) as opened:
        yield opened


def read_for(source, seconds):
    """Frames of so many seconds, and each state that was seen."""
    frames, states, end_s = [], [], time.monotonic() + seconds
    while time.monotonic() < end_s:
        frames.append(source.read())
        if not states or states[-1] is not source.state:
            states.append(source.state)
    return frames, states


def test_a_stream_is_read_without_a_trace_of_its_password(camera, source, caplog):
    caplog.set_level("DEBUG")
    frames, states = read_for(source, 1)
    assert source.live
    assert len(frames) > 15
    assert frames[0].image.shape == (120, 160, 3)
    assert states == [State.LIVE]
    camera.kill()
    time.sleep(0.3)
    assert "secret" not in source.name + caplog.text
    camera.start()


def test_a_server_that_comes_back_with_another_size_is_followed_in_time(camera, source):
    read_for(source, 0.5)
    camera.kill()
    found = []
    reader = threading.Thread(target=lambda: found.extend(read_until(source, (240, 320, 3))))
    reader.start()
    time.sleep(2.5)
    assert source.state in (State.LOST, State.OPENING)
    camera.start(320, 240)
    back_s = time.monotonic()
    reader.join(20)
    assert found[-1].image.shape == (240, 320, 3)
    assert time.monotonic() - back_s < 5
    indices = [frame.index for frame in found]
    assert indices == list(range(indices[0], indices[0] + len(indices)))


def read_until(source, shape):
    frames = [source.read()]
    while frames[-1] is not None and frames[-1].image.shape != shape:
        frames.append(source.read())
    return frames


def test_a_server_that_hangs_is_stale_by_our_clock_and_live_when_it_goes_on(camera, source):
    read_for(source, 0.5)
    threading.Thread(target=lambda: read_for(source, 12), daemon=True).start()
    camera.pause()
    start_s = time.monotonic()
    assert wait_for(source, State.STALE, 3) - start_s < LIMITS.stale_s + 1
    assert wait_for(source, State.LOST, 4) - start_s < LIMITS.lost_s + 1
    camera.resume()
    start_s = time.monotonic()
    assert wait_for(source, State.LIVE, 10) - start_s < 5


def wait_for(source, state, limit_s):
    end_s = time.monotonic() + limit_s
    while source.state is not state:
        assert time.monotonic() < end_s, f"{source.state} and not {state}"
        time.sleep(0.01)
    return time.monotonic()


def test_a_frozen_and_a_black_picture_are_seen_through_the_codec(camera, source):
    assert read_for(source, 1)[1] == [State.LIVE]
    # An encoder that others slow down shows the new picture later: the states count, not when.
    for picture, state in (("white", State.FROZEN), ("black", State.BLACK), ("ball", State.LIVE)):
        camera.show(picture)
        assert read_until_state(source, state, 15) is state


def read_until_state(source, state, limit_s):
    end_s = time.monotonic() + limit_s
    while source.read() is not None and time.monotonic() < end_s and source.state is not state:
        pass
    return source.state


def test_without_attempts_a_loss_is_an_error_that_says_what_to_check(camera):
    settings = SourceSettings(limits=LIMITS, reconnect=0)
    with open_source(camera.url, settings) as source:
        read_for(source, 0.3)
        camera.kill()
        with pytest.raises(SourceError, match=r"is lost: .*check its cable, power or network"):
            read_for(source, 10)
        camera.start()


class SlowModel:
    name = "slow"

    def __init__(self, seconds):
        self._seconds = seconds

    def outputs(self, image):
        time.sleep(self._seconds)
        return {"label_map": np.zeros(image.shape[:2], np.uint8)}


def test_a_model_three_times_too_slow_gets_fresh_frames_and_the_reader_never_waits(source):
    stop = threading.Event()
    timer = threading.Timer(4, stop.set)
    pipeline = Pipeline(source, SlowModel(0.12), (8, 8), stop=stop)
    timer.start()
    results = list(pipeline.results())
    figures = pipeline.snapshot()
    assert figures.read == figures.segmented + figures.dropped
    assert figures.read > 2.2 * figures.segmented
    assert figures.stage_ms["age"][0] < 350
    assert results


@pytest.mark.parametrize("on_loss", ["hold", "blank"])
def test_results_go_on_while_the_server_is_away(camera, source, on_loss):
    stop = threading.Event()
    pipeline = Pipeline(source, SlowModel(0.01), (8, 8), stop=stop, loss=LossPolicy(on_loss, 255))
    results = []
    timers = [threading.Timer(1, camera.kill), threading.Timer(4, stop.set)]
    for timer in timers:
        timer.start()
    for result in pipeline.results():
        results.append((result, result.frame.age_ms))
    repeated = [(result, age_ms) for result, age_ms in results if result.repeated]
    assert 3 <= len(repeated) <= 8
    assert {result.state for result, _ in repeated} <= {"stale", "lost", "opening"}
    ages_ms = [age_ms for _, age_ms in repeated]
    assert ages_ms == sorted(ages_ms)
    assert ages_ms[-1] > 1000
    blank = on_loss == "blank"
    assert all((result.label_map == 255).all() == blank for result, _ in repeated)
    assert all((result.frame.image == 0).all() == blank for result, _ in repeated)
    camera.start()


def test_stopping_on_loss_names_the_state(camera, source):
    pipeline = Pipeline(source, SlowModel(0.01), (8, 8), loss=LossPolicy("stop", 255))
    threading.Timer(0.5, camera.kill).start()
    with pytest.raises(SourceError, match=r"is (stale|lost|opening): stopped, as --on-loss stop"):
        list(pipeline.results())
    camera.start()


def test_a_signal_ends_a_stream_in_time_while_its_server_hangs(camera, tmp_path):
    processes = {}
    with ExitStack() as ended:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            lines = tmp_path / f"{number.name}.jsonl"
            command = [sys.executable, "-m", "runtime.stream", camera.url, "--jsonl", str(lines)]
            processes[number] = ended.enter_context(
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            )
            ended.callback(processes[number].kill)
        for number in processes:
            wait_for_lines(tmp_path / f"{number.name}.jsonl")
        assert_signals_end(processes, camera, tmp_path)


def assert_signals_end(processes, camera, tmp_path):
    camera.pause()
    time.sleep(1)
    for number, process in processes.items():
        start_s = time.monotonic()
        process.send_signal(number)
        summary, errors = process.communicate(timeout=20)
        took_s = time.monotonic() - start_s
        assert process.returncode == 0, errors
        assert b"segmented" in summary
        written = (tmp_path / f"{number.name}.jsonl").read_bytes()
        assert b"secret" not in summary + errors + written
        assert took_s < 4  # under load; alone it takes 1.2 s
    camera.resume()


def test_a_camera_that_is_away_at_the_start_joins_the_other(camera, tmp_path):
    camera.kill()
    config = tmp_path / "stream.toml"
    config.write_text(f"""
        [[source]]
        name = "late"
        from = "{camera.url}"
        jsonl = "{tmp_path / "late.jsonl"}"
        [[source]]
        name = "beside"
        from = "streetsynth"
        loop = true
        jsonl = "{tmp_path / "beside.jsonl"}"
    """)
    command = [sys.executable, "-m", "runtime.stream", "--config", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            wait_for_lines(tmp_path / "beside.jsonl")
            assert not (tmp_path / "late.jsonl").read_text()
            camera.start()
            wait_for_lines(tmp_path / "late.jsonl")
            process.send_signal(signal.SIGTERM)
            summary, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert b"late: live, after" in errors
    assert b"secret" not in summary + errors


def wait_for_lines(path, limit_s=30):
    end_s = time.monotonic() + limit_s
    while not (path.exists() and path.stat().st_size):
        assert time.monotonic() < end_s, "the stream wrote nothing"
        time.sleep(0.05)


def test_a_decoder_that_held_a_frame_back_does_not_give_it_out_as_new(camera):
    """The library gives up after 5 s, and empties its decoder."""
    settings = SourceSettings(limits=WatchdogLimits(stale_s=0.5, lost_s=20))
    with open_source(camera.url, settings) as source:
        read_for(source, 1)
        camera.pause()
        came = []
        reader = threading.Thread(
            target=lambda: [came.append((time.monotonic(), source.read())) for _ in range(99)],
            daemon=True,
        )
        reader.start()
        time.sleep(1)
        stopped_s = time.monotonic()
        time.sleep(7)
        during = [frame for at_s, frame in came if at_s > stopped_s]
        camera.resume()
        assert during == []
        source.interrupt()
        reader.join(5)
