"""The picture of a confusion matrix."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sfda_edge.report.confusion_picture import save_confusion_picture


@pytest.mark.parametrize("num_classes", [1, 2, 3])
def test_the_title_of_few_classes_is_not_cut(num_classes, tmp_path):
    evaluation = SimpleNamespace(
        label_space=SimpleNamespace(names=[f"class {index}" for index in range(num_classes)]),
        confusion=SimpleNamespace(counts=np.eye(num_classes)),
        scores=SimpleNamespace(miou=1.0),
    )
    save_confusion_picture(evaluation, tmp_path / "confusion.png")
    pixels = np.asarray(Image.open(tmp_path / "confusion.png").convert("L"))
    assert pixels.min() < 50
    assert (pixels[:, :2] == 255).all()
    assert (pixels[:, -2:] == 255).all(), "a text reaches the right border"
