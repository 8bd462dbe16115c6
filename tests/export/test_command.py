from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from export.command import ExportFlags, _labelled, export_loaded
from export.errors import ExportError
from runtime.bundle.labels import LabelSpace
from sfda_edge.data.validation import Validation
from sfda_edge.labels.label_spaces import LABEL_SPACES


def test_what_the_data_set_ignores_is_not_scored_whatever_the_model_calls_it(tmp_path, packaged):
    """CamVid's 11 is no class of a model whose own file of classes says 255."""
    camvid = LABEL_SPACES["camvid"]
    space = LabelSpace(camvid.names, camvid.palette, 255)
    source = replace(packaged, spec=replace(packaged.spec, label_space=space, input_hw=(8, 8)))
    labels = np.full((8, 8), 3, np.uint8)
    labels[:2] = camvid.ignore_index
    for name, picture in (("images", np.zeros((8, 8, 3), np.uint8)), ("labels", labels)):
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.fromarray(picture).save(tmp_path / "val" / name / "0.png")
    ((image, found),) = _labelled(source, Validation(f"camvid:{tmp_path}/val"), None)
    assert image.shape == (8, 8, 3)
    assert (found[:2] == 255).all()
    assert (found[2:] == 3).all()


def test_a_place_that_holds_something_else_is_refused_before_images_are_read(
    tmp_path, packaged, monkeypatch
):
    def read(*_arguments):
        raise AssertionError("images are read")

    monkeypatch.setattr("export.command._gate_images", read)
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ExportError, match="is not a bundle of ours"):
        export_loaded(packaged, ExportFlags(), tmp_path)
