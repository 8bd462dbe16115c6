"""The front, against its definition written as sets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.pareto.front import Point, front
from benchmarks.pareto.picture import save_picture

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


def test_the_picture_shows_the_front_in_colour(tmp_path):
    import cv2

    points = [Point("fast", 5, 40), Point("good", 9, 60), Point("bad", 10, 30)]
    save_picture(points, tmp_path / "front.png", "$ is no formula")
    picture = cv2.imread(str(tmp_path / "front.png"))
    blue = (abs(picture.astype(int) - (218, 105, 9)).sum(2) < 30).sum()
    grey = (abs(picture.astype(int) - (189, 182, 176)).sum(2) < 30).sum()
    assert blue > 200
    assert grey > 10
    save_picture(points, tmp_path / "front.svg", "title")
    assert (
        "good" in (tmp_path / "front.svg").read_text()
        or "<svg" in (tmp_path / "front.svg").read_text()
    )


def test_equal_points_are_all_kept():
    twins = [Point("a", 5, 40), Point("b", 5, 40)]
    assert front(twins) == twins
    assert not twins[0].dominates(twins[1])


@pytest.mark.parametrize("miou", [40, 41])
def test_faster_and_as_good_wins(miou):
    assert Point("a", 4, miou).dominates(Point("b", 5, 40))
