import json

import numpy as np
import pytest

from benchmarks import scale
from sfda_edge.data import open_images


def test_images_are_all_different_and_stay_when_more_are_written(tmp_path):
    scale.write_images(tmp_path / "images", 45)
    images = open_images(tmp_path / "images")
    found = [sample.image() for sample in images.samples]
    assert {image.shape for image in found} == {(240, 480, 3)}
    assert len({image.tobytes() for image in found}) == 45
    scale.write_images(tmp_path / "images", 46)
    again = [sample.image() for sample in open_images(tmp_path / "images").samples]
    assert len(again) == 46
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=False))


@pytest.mark.slow
def test_each_row_is_an_adaptation(tmp_path, capfd):
    out = tmp_path / "scale.json"
    assert scale.main(["--images", "6,4", "--method", "bn", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["images"] for row in rows] == [4, 6]
    assert all(row["seconds"] > 0 and 0.1 < row["peak_memory_gib"] < 10 for row in rows)
    assert "| 6 |" in capfd.readouterr().out
