"""The front, against its definition written as sets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.measuring.rows import Invocation, Origin
from benchmarks.pareto.front import Point, front
from benchmarks.pareto.table import csv_lines, points_of, table

NUMBERS = st.integers(1, 6)
POINTS = st.lists(st.builds(Point, st.uuids().map(str), NUMBERS, NUMBERS), min_size=1, max_size=12)


@given(POINTS)
def test_a_point_is_on_the_front_unless_another_is_better(points):
    best = front(points)
    for one in points:
        beaten = any(
            (other.p50_ms < one.p50_ms and other.miou >= one.miou)
            or (other.p50_ms <= one.p50_ms and other.miou > one.miou)
            for other in points
        )
        assert (one in best) == (not beaten)
    assert [one.p50_ms for one in best] == sorted(one.p50_ms for one in best)


def test_equal_points_are_all_kept():
    twins = [Point("a", 5, 40), Point("b", 5, 40)]
    assert front(twins) == twins
    assert not twins[0].dominates(twins[1])


@pytest.mark.parametrize("miou", [40, 41])
def test_faster_and_as_good_wins(miou):
    assert Point("a", 4, miou).dominates(Point("b", 5, 40))


def test_two_runs_of_one_network_are_two_points():
    machine = {"processor": "a", "cores": 2, "load_average_1min": 0, "python": "3"}
    machine |= {"packages": {}, "measured": "2026-11-30"}
    origin = Origin(Invocation("pareto", "command", None), "network", "8x8", "fp32")
    rows = []
    for run, p50_ms, miou in (("good", 10, 60), ("bad", 12, 50)):
        figures = {"p50_ms": p50_ms, "p99_ms": 20, "miou": miou, "agreement_with_torch": 1}
        conditions = {"run": run, "argmax": "full", "validation": "clip"}
        rows += origin.rows({"onnxruntime": figures}, machine, conditions)
    assert [cells[-1] for cells in table(rows).cells] == ["front", ""]
    assert len({point.name for point in points_of(rows)}) == 2
    assert [line[0] for line in csv_lines(rows)] == ["run", "good", "bad"]
