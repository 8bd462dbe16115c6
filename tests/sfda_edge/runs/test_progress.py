"""What long work shows where nobody sees a bar."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sfda_edge.runs import progress
from sfda_edge.runs.progress import progress_bar


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def take(steps, clock, seconds):
    taken = []
    for step in steps:
        clock.seconds += seconds
        taken.append(step)
    return taken


def test_without_a_terminal_a_line_comes_every_half_minute(clock, caplog, capsys):
    caplog.set_level("INFO")
    assert take(progress_bar("adapt", done=10, total=15)(iter("abcde")), clock, 20) == [*"abcde"]
    assert caplog.messages == ["adapt: 12 of 15", "adapt: 14 of 15"]
    assert capsys.readouterr().err == ""


def test_the_total_is_that_of_the_steps_or_unknown(clock, caplog):
    caplog.set_level("INFO")
    take(progress_bar("read")([1, 2]), clock, 30)
    take(progress_bar("read")(iter([1])), clock, 30)
    assert caplog.messages == ["read: 1 of 2", "read: 2 of 2", "read: 1"]


def test_short_work_says_nothing(clock, caplog):
    caplog.set_level("INFO")
    take(progress_bar("read")(range(100)), clock, 0.25)
    assert caplog.messages == []
