from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from export.errors import ParityError
from export.gate.parity import border_band, compare, require
from export.thresholds import Gate

IMAGE = np.zeros((2, 4, 3), np.uint8)
REFERENCE = np.array([[0, 0, 1, 1], [0, 0, 1, 2]], np.uint8)
CANDIDATE = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.uint8)


LENIENT = Gate(label_agreement=0.9, class_iou=0.0, miou_loss=1.0)


def judged(three_classes, gate=LENIENT, **answers):
    reference = {"label_map": REFERENCE}
    candidate = {"label_map": CANDIDATE}
    if answers:
        reference["confidence"], candidate["confidence"] = answers["before"], answers["after"]
    return compare([reference], lambda _: candidate, [IMAGE], space=three_classes, gate=gate)


def test_it_counts_pixels_and_names_the_worst_class(three_classes):
    report = judged(three_classes)
    assert report.label_agreement == pytest.approx(7 / 8)
    assert report.lowest_class == "car"
    assert report.class_iou == {"sky": 1.0, "road": 0.75, "car": 0.0}
    assert report.class_share == {"sky": 0.5, "road": 3 / 8, "car": 1 / 8}
    assert not report.passed


def test_a_failure_says_what_was_needed(three_classes):
    with pytest.raises(ParityError) as caught:
        require(
            judged(three_classes, Gate(label_agreement=0.9, class_iou=0.5, miou_loss=1.0)),
            "the fp16 graph",
        )
    text = str(caught.value)
    assert "the fp16 graph differs from the model" in text
    assert "label agreement 87.500 %, at least 90 % needed" in text
    assert "class car: IoU 0.0000 with the reference, at least 0.5 needed" in text


def test_a_loss_of_miou_beyond_the_gate_fails(three_classes):
    report = replace(
        judged(three_classes, Gate(label_agreement=0.5, class_iou=0.0, miou_loss=1.0)),
        miou_change=-1.2,
    )
    assert report.failures() == ["mIoU dropped 1.20 points; at most 1 allowed"]
    assert replace(report, miou_change=-0.9).passed


def test_the_confidences_drift_is_a_mean_of_absolute_changes(three_classes):
    before = np.full((2, 4), 200, np.uint8)
    after = before.copy()
    after[0, 0], after[0, 1] = 100, 255
    report = judged(three_classes, before=before, after=after)
    assert report.confidence_drift == pytest.approx((100 + 55) / 8 / 255)
    gate = Gate(label_agreement=0.8, class_iou=0.0, miou_loss=1.0, confidence_drift=0.05)
    strict = judged(three_classes, gate, before=before, after=np.zeros_like(before))
    (failure,) = strict.failures()
    assert failure == "confidence changes by 0.7843; at most 0.05 allowed"


def test_the_health_vector_is_compared_part_by_part(three_classes):
    layout = {"mean_entropy": 1, "class_histogram": 3, "channel_means a": 2, "channel_means b": 2}
    before = np.array([0.2, 0.5, 0.25, 0.25, 30, 40, 0, 0], np.float32)
    after = np.array([0.21, 0.4, 0.3, 0.3, 33, 44, 0, 0], np.float32)
    maps = {"label_map": REFERENCE}
    references, candidate = [{**maps, "health": before}], {**maps, "health": after}
    gate = Gate(label_agreement=0.8, class_iou=0.0, miou_loss=1.0, health_drift=0.15)

    def found():
        return compare(
            references,
            lambda _: candidate,
            [IMAGE],
            space=three_classes,
            gate=gate,
            health_layout=layout,
        )

    report = found()
    drifts = {"mean_entropy": 0.01, "class_histogram": 0.1, "channel_means b": 0}
    assert report.health_drift == pytest.approx(drifts | {"channel_means a": 0.1}, abs=1e-6)
    assert report.passed
    for part, index, moved in (("channel_means b", 7, "1.0000"), ("mean_entropy", 0, "0.8000")):
        candidate["health"] = after.copy()
        candidate["health"][index] = 1
        assert found().failures() == [f"health's {part} changes by {moved}; at most 0.15 allowed"]


def test_a_class_too_rare_to_tell_is_not_the_worst(three_classes):
    reference = np.zeros((100, 100), np.uint8)
    reference[0, :5] = 2  # 0.05 % of the pixels
    candidate = np.zeros_like(reference)
    candidate[50:] = 1
    report = compare(
        [{"label_map": reference}],
        lambda _: {"label_map": candidate},
        [np.zeros((100, 100, 3), np.uint8)],
        space=three_classes,
        gate=Gate(label_agreement=0.0, class_iou=0.0, miou_loss=1.0),
    )
    assert report.class_iou["car"] == 0.0
    assert report.lowest_class == "sky"


@given(
    arrays.arrays(
        np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 2)
    ),
    st.integers(1, 3),
)
def test_the_border_band_is_what_a_naive_loop_finds(labels, width):
    height, length = labels.shape
    expected = np.zeros(labels.shape, bool)
    for row in range(height):
        for column in range(length):
            for step in range(1, width + 1):
                for r, c in ((row + step, column), (row - step, column)):
                    if 0 <= r < height:
                        expected[row, column] |= labels[r, c] != labels[row, column]
                for r, c in ((row, column + step), (row, column - step)):
                    if 0 <= c < length:
                        expected[row, column] |= labels[r, c] != labels[row, column]
    np.testing.assert_array_equal(border_band(labels, width), expected)


def test_border_and_interior_are_told_apart(three_classes):
    reference = np.zeros((20, 40), np.uint8)
    reference[:, 20:] = 1
    candidate = reference.copy()
    candidate[0, 19] = candidate[5, 2] = 2
    report = compare(
        [{"label_map": reference}],
        lambda _: {"label_map": candidate},
        [np.zeros((20, 40, 3), np.uint8)],
        space=three_classes,
        gate=Gate(label_agreement=0.0, class_iou=0.0, miou_loss=1.0),
    )
    assert report.border_agreement == pytest.approx(1 - 1 / 80)  # two columns on each side
    assert report.interior_agreement == pytest.approx(1 - 1 / 720)


def test_answers_that_are_no_numbers_fail(three_classes):
    maps = {"label_map": REFERENCE}
    broken = {**maps, "health": np.array([0.1, np.nan], np.float32)}
    gate = Gate(label_agreement=0.0, class_iou=0.0, miou_loss=1.0)
    report = compare([maps], lambda _: broken, [IMAGE], space=three_classes, gate=gate)
    assert report.failures() == ["health holds NaN or infinite values"]


def test_no_images_prove_nothing(three_classes):
    with pytest.raises(ValueError, match="at least one image"):
        compare(
            [],
            lambda _: {},
            [],
            space=three_classes,
            gate=Gate(label_agreement=0, class_iou=0, miou_loss=1),
        )
