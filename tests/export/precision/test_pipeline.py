"""From a model to a graph in a precision: what is refused on the way."""

import math
from dataclasses import replace

import pytest

from export.errors import ExportError
from export.gate.reference import Reference
from export.precision.pipeline import eight_bits, single_precision
from export.profiles import find_profile
from export.thresholds import Thresholds


class SearchBeginsError(Exception):
    """The search was reached."""


@pytest.mark.parametrize(
    ("changes", "int8_ms", "refused"),
    [
        ({}, 12.0, True),
        ({}, 9.0, False),
        ({"int8_time_ratio": 1.3}, 12.0, False),
        ({"int8_time_ratio": math.inf}, 99.0, False),
        ({"profile": "jetpack6"}, 99.0, False),
    ],
)
def test_int8_that_is_slower_than_fp32_is_refused_before_the_search(
    request_, calibration, monkeypatch, changes, int8_ms, refused
):
    timed = []

    def times(graphs, _images):
        timed.append([{node.op_type for node in graph.graph.node} for graph in graphs])
        return [int8_ms, 10.0]

    def search(*_arguments, **_settings):
        raise SearchBeginsError

    monkeypatch.setattr("export.precision.pipeline.median_ms", times)
    monkeypatch.setattr("export.precision.int8.nodes_to_keep", search)
    ratio = changes.get("int8_time_ratio", 1.0)
    asked = replace(
        request_,
        precision="int8",
        calibration=calibration,
        thresholds=Thresholds(int8_time_ratio=ratio),
        profile=find_profile(changes.get("profile", "cpu")),
    )
    reference = Reference(asked)
    graph = single_precision(asked, reference.deploy)
    with pytest.raises(ExportError if refused else SearchBeginsError) as stopped:
        eight_bits(graph, reference)
    if refused:
        assert "12.0 ms instead of 10.0 ms, 1.20 x where 1 x is allowed" in str(stopped.value)
        assert "--set int8_time_ratio=inf" in str(stopped.value)
    for int8, fp32 in timed:
        assert "QuantizeLinear" in int8
        assert "QuantizeLinear" not in fp32
    assert bool(timed) == (ratio != math.inf and "profile" not in changes)
