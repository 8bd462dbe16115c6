"""Benchmarks measure little in tests: that they run, and what they write."""

import pytest

from benchmarks.measuring.closed_loop import Effort


@pytest.fixture(scope="session", autouse=True)
def each_graph_is_exported_once(exported_once):
    """torch's exporter takes ten seconds."""


@pytest.fixture(autouse=True)
def threads_stay_as_they_were():
    """``peers`` sets those of torch; a later test of this process would compute with them, too."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def little_effort(monkeypatch):
    """Ten calls of each way, whatever was asked for."""
    monkeypatch.setattr(
        "benchmarks.measuring.closed_loop.Effort",
        lambda **_asked: Effort(10, min_seconds=0.05, warm_up_s=0.1),
    )
