from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from runtime.bundle.labels import LabelSpace
from sfda_edge.data import ImageSet, open_images
from sfda_edge.data.folder import open_folder
from sfda_edge.data.images import Sample
from sfda_edge.data.relabel import in_classes_of
from sfda_edge.errors import CheckpointError, DataError
from sfda_edge.evaluation import Predictor, evaluate
from sfda_edge.labels.class_map import load_class_map
from sfda_edge.labels.label_spaces import LABEL_SPACES
from sfda_edge.models import ModelSpec

CPU = torch.device("cpu")

RAW = {"mean": (0, 0, 0), "std": (1 / 255, 1 / 255, 1 / 255)}


class GreyReader(nn.Module):
    """Knows the fixture's drawing rule: grey level = 80 x label + 20. Input not normalised."""

    def forward(self, images):
        labels = ((images[:, 0] - 20) / 80).round().long().clamp(0, 2)
        return functional.one_hot(labels, 3).permute(0, 3, 1, 2).float() * 10


@pytest.fixture
def raw_spec(three_classes):
    return ModelSpec("grey", three_classes, (24, 40), **RAW)


def test_a_perfect_model_scores_one(labelled_folder, raw_spec):
    images = open_images(str(labelled_folder / "images"), labelled_folder / "labels")
    evaluation = evaluate(Predictor(GreyReader(), raw_spec, CPU), images)
    assert evaluation.num_images == 6
    assert evaluation.scores.miou == 1.0
    assert repr(evaluation) == f"Evaluation(mIoU 100.0 % of {evaluation.num_images} images)"
    assert evaluation.record()["iou"] == {"sky": 1.0, "road": 1.0, "car": 1.0}
    assert "mIoU             100.0" in evaluation.text()


def test_the_observer_sees_every_image_with_its_prediction(labelled_folder, raw_spec):
    images, seen = open_images(str(labelled_folder / "images"), labelled_folder / "labels"), []
    evaluate(
        Predictor(GreyReader(), raw_spec, CPU), images,
        observer=lambda loaded, predicted: seen.append((loaded.label_map == predicted).all()),
    )  # fmt: skip
    assert seen == [True] * 6


def test_probabilities_not_labels_are_joined():
    """Three classes of 0.3, 0.3 and 0.4: joined, the first two win over the third."""

    class Constant(nn.Module):
        def forward(self, images):
            logits = torch.full((1, 20, *images.shape[2:]), -20.0)
            for name, share in (("road", 0.4), ("building", 0.3), ("wall", 0.3)):
                logits[:, space.names.index(name)] = float(np.log(share))
            return logits

    space = LABEL_SPACES["cityscapes20"]
    class_map = load_class_map("cityscapes-camvid", space)
    spec = ModelSpec("constant", space, (8, 8), class_map=class_map)
    label_map = Predictor(Constant(), spec, CPU).label_map(np.zeros((6, 5, 3), np.uint8))
    assert label_map.shape == (6, 5)
    assert (label_map == LABEL_SPACES["camvid"].names.index("building")).all()


def test_images_without_labels_are_an_error(labelled_folder, raw_spec):
    images = open_images(str(labelled_folder / "images"))
    with pytest.raises(DataError, match="has no labels; --labels, --validation-labels or"):
        evaluate(Predictor(GreyReader(), raw_spec, CPU), images)


def test_classes_that_the_model_does_not_have_are_not_scored(labelled_folder, caplog):
    """Of sky, road, car, the model knows car and sky, and calls them 0 and 1."""

    class Known(nn.Module):
        def forward(self, images):
            labels = (images[:, 0] < 150).long()
            return functional.one_hot(labels, 2).permute(0, 3, 1, 2).float() * 10

    space = LabelSpace(("car", "sky"), ((255, 0, 0), (0, 0, 255)), 200)
    spec = ModelSpec("known", space, (24, 40), **RAW)
    own = LabelSpace(("sky", "road", "car"), ((0, 0, 255), (128, 64, 128), (255, 0, 0)))
    images = open_folder(labelled_folder / "images", labelled_folder / "labels", own)
    caplog.set_level("INFO", "sfda_edge")
    evaluation = evaluate(Predictor(Known(), spec, CPU), images)
    assert "ignored: labels of road" in caplog.text
    labels = np.stack([sample.label_map() for sample in images.samples])
    assert evaluation.scores.miou == 1.0
    assert evaluation.confusion.counts.sum() == (labels != 1).sum()


def test_synthias_classes_are_scored_on_cityscapes_labels():
    names = [LABEL_SPACES[name].names for name in ("cityscapes16", "cityscapes")]
    labels = np.arange(20, dtype=np.uint8)[None] % 20
    labels[0, 19] = 255
    sample = Sample("street", lambda: labels, lambda: labels)
    images = ImageSet("streets", (sample,), LABEL_SPACES["cityscapes"])
    found = in_classes_of(images, LABEL_SPACES["cityscapes16"]).samples[0].label_map()[0]
    for number, name in enumerate(names[1]):
        assert found[number] == (names[0].index(name) if name in names[0] else 255)
    assert found[19] == 255
    foreign = replace(sample, label_map=lambda: np.full((1, 1), 40, np.uint8))
    with pytest.raises(DataError, match="street: label 40 is outside the 19 classes"):
        in_classes_of(replace(images, samples=(foreign,)), LABEL_SPACES["cityscapes16"]).samples[
            0
        ].label_map()


def test_labels_of_other_classes_are_an_error_that_names_the_map(raw_spec):
    other = LabelSpace(("sky", "road", "boat"), raw_spec.label_space.palette)
    spec = replace(raw_spec, label_space=other)
    with pytest.raises(DataError, match=r"predicts 3 classes.*have 11.*without boat; --map"):
        evaluate(Predictor(GreyReader(), spec, CPU), open_images("streetsynth:source"))


def test_predictions_that_are_no_numbers_are_an_error(labelled_folder, three_classes):
    """And not the first class; what a damaged source predicts can be measured all the same."""
    model = nn.Conv2d(3, 3, 1)
    nn.init.constant_(model.bias, float("nan"))
    spec = ModelSpec("user_network:build", three_classes, (32, 64))
    images = open_images(labelled_folder / "images", labelled_folder / "labels")
    with pytest.raises(CheckpointError, match="are its weights damaged"):
        evaluate(Predictor(model, spec, torch.device("cpu")), images)
    predictor = Predictor(model, spec, torch.device("cpu"), allow_nonfinite=True)
    assert evaluate(predictor, images).num_images == 6


def test_ignored_pixels_and_absent_classes_are_said(labelled_folder, three_classes):
    for path in (labelled_folder / "labels").glob("*.png"):
        labels = np.asarray(Image.open(path)).copy()
        labels[labels == 2] = 1
        labels[: len(labels) // 4] = 255
        Image.fromarray(labels).save(path)
    spec = ModelSpec("user_network:build", three_classes, (32, 64))
    images = open_images(labelled_folder / "images", labelled_folder / "labels")
    found = evaluate(Predictor(nn.Conv2d(3, 3, 1), spec, torch.device("cpu")), images)
    labels = [np.asarray(Image.open(path)) for path in (labelled_folder / "labels").glob("*.png")]
    expected = sum((one == 255).sum() for one in labels) / sum(one.size for one in labels)
    assert found.ignored_share == pytest.approx(expected)
    assert found.record()["ignored_share"] == pytest.approx(expected, abs=1e-6)
    assert f"in no label map: {three_classes.names[2]}" in found.text()
