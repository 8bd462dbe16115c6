"""From a model to a graph in a precision: what is refused on the way."""

import functools
from dataclasses import replace

import pytest

from export.errors import ExportError
from export.gate.reference import Reference
from export.precision.pipeline import _require_fast, eight_bits, single_precision
from export.profiles import find_profile
from export.request import ExportRequest
from export.thresholds import Thresholds
from sfda_edge.recipes.recipe import load_recipe


class SearchBeginsError(Exception):
    """The search was reached."""


@pytest.fixture(scope="module")
def in_single(packaged, frames):
    """The packaged model's graph before it is quantised, of each profile; never changed."""

    @functools.cache
    def graph(profile):
        asked = ExportRequest(
            model=packaged.network,
            spec=packaged.spec,
            images=frames,
            precision="int8",
            profile=profile,
        )
        return single_precision(asked, Reference(asked).deploy)

    return graph


@pytest.mark.parametrize(
    ("changes", "int8_ms", "refused"),
    [
        ({}, 12.0, True),
        ({}, 9.0, False),
        ({"int8_time_ratio": 1.3}, 12.0, False),
        ({"int8_time_ratio": 0}, 99.0, False),
        ({"profile": "jetpack6"}, 99.0, False),
    ],
)
def test_int8_that_is_slower_than_fp32_is_refused_before_the_search(
    request_, in_single, calibration, monkeypatch, changes, int8_ms, refused
):
    timed = []

    def times(graphs, _images):
        timed.append([{node.op_type for node in graph.graph.node} for graph in graphs])
        return [int8_ms, 10.0]

    def search(*_arguments, **_settings):
        raise SearchBeginsError

    monkeypatch.setattr("export.precision.pipeline.median_ms", times)
    monkeypatch.setattr("export.precision.int8.RULES", ("min-max",))
    monkeypatch.setattr("export.precision.int8.nodes_to_keep", search)
    ratio = changes.get("int8_time_ratio", 1.0)
    asked = replace(
        request_,
        precision="int8",
        calibration=calibration,
        thresholds=load_recipe("export", Thresholds, (f"int8_time_ratio={ratio}",)),
        profile=find_profile(changes.get("profile", "cpu")),
    )
    with pytest.raises(ExportError if refused else SearchBeginsError) as stopped:
        eight_bits(in_single(asked.profile), Reference(asked))
    if refused:
        assert "12.0 ms instead of 10.0 ms, 1.20 x where 1 x is allowed" in str(stopped.value)
        assert "--set int8_time_ratio=0" in str(stopped.value)
    for int8, fp32 in timed:
        assert "QuantizeLinear" in int8
        assert "QuantizeLinear" not in fp32
    assert len(timed) <= 2
    assert bool(timed) == (ratio != 0 and "profile" not in changes)


def test_one_slow_measurement_of_a_busy_machine_is_not_enough(request_, in_single, monkeypatch):
    times = iter([(12.0, 10.0), (9.0, 10.0)])
    monkeypatch.setattr("export.precision.pipeline.median_ms", lambda *_: next(times))
    asked = replace(request_, thresholds=Thresholds())
    graph = in_single(asked.profile)
    _require_fast(graph, graph, request=asked)
    assert next(times, None) is None
