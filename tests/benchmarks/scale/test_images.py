import numpy as np
import pytest

from benchmarks.measuring.rows import read_rows
from benchmarks.scale import images as scale_images
from benchmarks.scale.__main__ import main
from sfda_edge.data import open_images


def test_images_are_all_different_and_stay_when_more_are_written(tmp_path):
    scale_images.write_images(tmp_path / "images", 45)
    images = open_images(tmp_path / "images")
    found = [sample.image() for sample in images.samples]
    assert {image.shape for image in found} == {(240, 480, 3)}
    assert len({image.tobytes() for image in found}) == 45
    scale_images.write_images(tmp_path / "images", 46)
    again = [sample.image() for sample in open_images(tmp_path / "images").samples]
    assert len(again) == 46
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=False))


@pytest.mark.slow
def test_each_row_is_an_adaptation(tmp_path, capfd):
    out = tmp_path / "scale.jsonl"
    assert main(["images", "--counts", "6,4", "--method", "bn", "--out", str(out)]) == 0
    rows = read_rows(out)
    assert [row.figures["images"] for row in rows] == [4, 6]
    assert [row.way for row in rows] == ["4 images", "6 images"]
    assert rows[0].conditions == {"axis": "images", "method": "bn", "steps": 20}
    for row in rows:
        assert row.figures["seconds"] > 0
        assert 0.1 < row.figures["peak_memory_gib"] < 10
    assert "| 6 images |" in capfd.readouterr().out
