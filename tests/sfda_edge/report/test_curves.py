"""Pictures of curves and matrices: any class name, and nothing global changes."""

from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from PIL import Image

from runtime.bundle.labels import LabelSpace
from sfda_edge.report.confusion_picture import save_confusion_picture
from sfda_edge.report.curves import curves, paired_bars, smoothed

NAMES = ("cost $5", "a_$\\frac{$", "<b>", "100 %")


def test_names_are_shown_as_they_are():
    steps = list(range(30))
    for picture in (
        curves(dict.fromkeys(NAMES, (steps, steps)), "score"),
        paired_bars(NAMES, [1, 2, 3, 4], [4, 3, 2, 1], "%"),
    ):
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert len(np.unique(picture)) > 10


def test_a_confusion_matrix_is_drawn_with_any_names(tmp_path):
    space = LabelSpace(NAMES, ((0, 0, 0),) * 4)
    evaluation = SimpleNamespace(
        label_space=space,
        confusion=SimpleNamespace(counts=np.diag([5, 4, 3, 2])),
        scores=SimpleNamespace(miou=1.0),
    )
    save_confusion_picture(evaluation, tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as picture:
        assert picture.size[0] > 300


def test_the_callers_matplotlib_stays_as_it_was():
    before = matplotlib.get_backend(), dict(matplotlib.rcParams)
    curves({"a": ([0, 1], [0, 1])}, "score")
    assert (matplotlib.get_backend(), dict(matplotlib.rcParams)) == before


def test_smoothing_is_the_mean_of_the_last_values():
    assert smoothed([1, 2, 3, 4], 2) == pytest.approx([1, 1.5, 2.5, 3.5])
