import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from runtime.confusion import ConfusionMatrix

CLASSES = 4
label_maps = arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 1, 2, 3, 255]))
predictions = arrays(np.uint8, (6, 7), elements=st.integers(0, CLASSES - 1))


def naive_iou(labels, predicted, c):
    inside = union = 0
    for truth, guess in zip(labels.flat, predicted.flat, strict=True):
        if truth == 255:
            continue
        inside += truth == c and guess == c
        union += truth == c or guess == c
    return inside / union if union else float("nan")


@given(label_maps, predictions)
def test_scores_agree_with_a_naive_loop(labels, predicted):
    confusion = ConfusionMatrix(CLASSES)
    confusion.update(labels, predicted)
    scores = confusion.scores()
    expected = np.array([naive_iou(labels, predicted, c) for c in range(CLASSES)])
    np.testing.assert_allclose(scores.iou, expected)
    if (labels != 255).any():
        assert scores.miou == pytest.approx(np.nanmean(expected))
        counted = labels != 255
        assert scores.pixel_accuracy == pytest.approx((labels == predicted)[counted].mean())
    else:
        assert np.isnan(scores.miou)


@given(label_maps, predictions)
def test_two_updates_count_as_one(labels, predicted):
    whole, parts = ConfusionMatrix(CLASSES), ConfusionMatrix(CLASSES)
    whole.update(labels, predicted)
    parts.update(labels[:2], predicted[:2])
    parts.update(labels[2:], predicted[2:])
    np.testing.assert_array_equal(whole.counts, parts.counts)


@pytest.mark.parametrize("ignore_index", [4, 11, 255])
def test_255_is_ignored_whatever_else_is(ignore_index):
    labels = np.array([[0, 1, 255, ignore_index]], np.uint8)
    confusion = ConfusionMatrix(4, ignore_index)
    confusion.update(labels, np.array([[0, 2, 3, 3]], np.uint8))
    assert confusion.counts.sum() == 2
    assert confusion.scores().pixel_accuracy == 0.5


def test_a_label_outside_the_classes_is_an_error():
    with pytest.raises(ValueError, match="label 4 is outside the 4 classes"):
        ConfusionMatrix(4).update(np.full((2, 2), 4, np.uint8), np.zeros((2, 2), np.uint8))


def test_another_shape_is_an_error():
    with pytest.raises(ValueError, match="labels are"):
        ConfusionMatrix(4).update(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8))
