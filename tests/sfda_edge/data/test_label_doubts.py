import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from runtime.bundle.labels import LabelSpace
from runtime.confusion import ConfusionMatrix
from sfda_edge.data.images import Sample, checked_label_map
from sfda_edge.data.label_counts import require_classes
from sfda_edge.data.label_doubts import LabelDoubts
from sfda_edge.data.validation import Validation
from sfda_edge.errors import DataError
from sfda_edge.labels.label_spaces import LABEL_SPACES

BINARY = LABEL_SPACES["binary"]


def doubt(labels, predictions, num_classes=4):
    confusion, doubts = ConfusionMatrix(num_classes), LabelDoubts(num_classes)
    for label_map, predicted in zip(labels, predictions, strict=True):
        confusion.update(label_map, predicted)
        doubts.update(label_map, predicted)
    return doubts.text(confusion)


def scenes(count=3, num_classes=3):
    """Blocks of classes, upside down never the same."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, num_classes, (count, 6, 8), dtype=np.uint8)
    return list(blocks.repeat(4, 1).repeat(4, 2))


def test_labels_that_begin_at_1_are_suspected():
    found = scenes()
    assert "if label 1 is the first class" in doubt([scene + 1 for scene in found], found)


def test_labels_that_are_upside_down_are_suspected():
    found = scenes()
    turned = [np.ascontiguousarray(scene[::-1, ::-1]) for scene in found]
    assert "turned upside down" in doubt(turned, found)


@settings(max_examples=60)
@given(st.floats(0, 0.6), st.integers(0, 99))
def test_right_labels_are_not_suspected_however_bad_the_predictions_are(share_wrong, seed):
    rng = np.random.default_rng(seed)
    found = scenes()
    noise = rng.random((len(found), *found[0].shape)) < share_wrong
    noisy = [
        np.where(wrong, rng.integers(0, 3, wrong.shape), scene).astype(np.uint8)
        for wrong, scene in zip(noise, found, strict=True)
    ]
    assert doubt(found, noisy) == ""


def test_two_classes_in_another_order_are_suspected():
    found = scenes(num_classes=2)
    assert "if the two classes are swapped" in doubt([1 - scene for scene in found], found, 2)
    assert doubt(found, found, 2) == ""


def test_ignored_labels_are_no_class():
    found = scenes()
    labels = [np.where(scene == 0, 255, scene).astype(np.uint8) for scene in found]
    assert doubt(labels, found) == ""
    assert doubt([np.full((8, 8), 255, np.uint8)], [np.zeros((8, 8), np.uint8)]) == ""


def test_labels_of_nothing_and_of_one_of_two_classes_are_errors():
    with pytest.raises(DataError, match="masks: no pixel has a label that the model knows"):
        require_classes(BINARY, np.array([0, 0]), 100, "masks")
    message = (
        r"masks: every label is background; 25 % of the pixels are ignored. If 255 means foreground"
    )
    with pytest.raises(DataError, match=message):
        require_classes(BINARY, np.array([300, 0]), 100, "masks")
    with pytest.raises(DataError, match=r"every label is foreground$"):
        require_classes(BINARY, np.array([0, 300]), 0, "masks")
    require_classes(BINARY, np.array([299, 1]), 100, "masks")
    three = LabelSpace(("a", "b", "c"), ((0, 0, 0),) * 3)
    require_classes(three, np.array([300, 0, 0]), 0, "one class of three may be all there is")


def test_validation_is_refused_before_any_work(labelled_folder):
    for path in (labelled_folder / "labels").glob("*.png"):
        Image.fromarray(np.zeros_like(np.asarray(Image.open(path)))).save(path)
    validation = Validation(labelled_folder / "images", labelled_folder / "labels")
    with pytest.raises(DataError, match="every label is background"):
        validation.open_checked(BINARY)


def test_labels_of_validation_may_be_of_other_classes(labelled_folder, three_classes):
    """0 is unlabelled, 1 to 3 are the model's: scored as they would be without it."""
    for path in (labelled_folder / "labels").glob("*.png"):
        labels = np.asarray(Image.open(path))
        Image.fromarray(np.where(labels == 255, 0, labels + 1).astype(np.uint8)).save(path)
    names = ("unlabelled", *three_classes.names)
    classes = LabelSpace(names, ((0, 0, 0), *three_classes.palette))
    plain = Validation(labelled_folder / "images", labelled_folder / "labels")
    with pytest.raises(DataError, match=r"label 3 is outside the 3 classes.*do they begin at 1"):
        plain.open_checked(three_classes)
    named = Validation(labelled_folder / "images", labelled_folder / "labels", classes)
    images = named.open_checked(three_classes)
    found = np.unique(np.stack([sample.label_map() for sample in images.samples]))
    assert set(found) <= {0, 1, 2, 255}


def test_a_label_map_that_lies_on_its_side_says_why():
    image = np.zeros((6, 8, 3), np.uint8)
    sample = Sample("photo.jpg", lambda: image, lambda: np.zeros((8, 6), np.uint8))
    with pytest.raises(DataError, match="6x8 but the image 8x6; does the image have an EXIF tag"):
        checked_label_map(sample, image, BINARY)
