import sys
import threading

import numpy as np
import pytest

from runtime.stats import RECENT_S, StreamStats


def test_percentiles_are_numpys():
    stats, values = StreamStats(), np.random.default_rng(0).uniform(1, 50, 500)
    stats.start()
    for value in values:
        stats.add({"infer": value})
    figures = stats.snapshot(500, 0)
    np.testing.assert_allclose(figures.stage_ms["infer"], np.percentile(values, (50, 95, 99)))
    assert figures.segmented == 500


def test_memory_is_bounded_and_counts_are_not():
    stats = StreamStats(window=10)
    stats.start()
    for value in range(100):
        stats.add({"infer": float(value)})
    figures = stats.snapshot(100, 3)
    assert figures.segmented == 100
    assert figures.stage_ms["infer"][0] == np.median(np.arange(90, 100))


def test_an_empty_stream_has_figures_too():
    figures = StreamStats().snapshot(0, 0)
    assert figures.fps == 0
    assert "0 segmented" in figures.table()
    assert figures.record()["frames_read"] == 0
    assert figures.line() == "fps 0.0  segmented 0  dropped 0", "no age where there is no frame"


def test_record_and_table_say_the_same():
    stats = StreamStats()
    stats.start()
    stats.add({"infer": 12.0, "age": 30.0})
    figures = stats.snapshot(2, 1)
    assert figures.record()["stage_ms"]["infer"]["p50"] == 12.0
    assert "2 read, 1 segmented, 1 dropped" in figures.table()


@pytest.fixture
def clock(monkeypatch):
    """``clock.now_s`` is the time."""
    from types import SimpleNamespace

    now = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr("runtime.stats.time", SimpleNamespace(monotonic=lambda: now.now_s))
    return now


def run_for(stats, clock, seconds, fps):
    for _ in range(round(seconds * fps)):
        clock.now_s += 1 / fps
        stats.add({"infer": 1.0})


def test_the_recent_rate_is_of_the_last_seconds_until_now(clock):
    stats = StreamStats()
    stats.start()
    run_for(stats, clock, 2, 25)
    assert stats.snapshot(50, 0).recent_fps == pytest.approx(25, rel=0.02)
    run_for(stats, clock, 600, 25)
    run_for(stats, clock, 2 * RECENT_S, 1)
    found = stats.snapshot(1, 0)
    assert found.recent_fps == pytest.approx(1, abs=0.11)
    assert found.fps > 20, "of the whole run"
    clock.now_s += 3600
    assert stats.snapshot(1, 0).recent_fps == 0
    assert stats.report(1, 0).fps < 5, "a report ends now, not with the last frame"
    assert stats.report(1, 0).fps == 0


def test_figures_may_be_asked_for_while_frames_are_done():
    stats, failures, done = StreamStats(), [], threading.Event()
    stats.start()

    def ask():
        while not done.is_set():
            try:
                stats.snapshot(1, 0)
            except RuntimeError as error:
                failures.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for index in range(3000):
            stats.add({f"stage {index % 300}": 1.0})
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(before)
    assert not failures
