"""Windows against what the whole image gives, where the two must be equal."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import sfda_edge
from sfda_edge.cli import main as cli
from sfda_edge.data import open_images
from sfda_edge.errors import DataError
from sfda_edge.evaluation import Predictor
from sfda_edge.models.sliding_windows import SlidingWindows, window_starts

SIDES = st.integers(1, 300)


@given(SIDES, SIDES, st.booleans())
def test_windows_cover_a_side_evenly(window, more, wrap):
    length = window + more
    starts = window_starts(length, window, wrap=wrap)
    covered = np.zeros(length, int)
    for start in starts:
        assert 0 <= start < length
        assert wrap or start + window <= length
        covered[(start + np.arange(window)) % length] += 1
    assert covered.min() >= 1
    steps = np.diff([*starts, starts[0] + length] if wrap else starts)
    assert len(steps) == 0 or steps.max() - steps.min() <= 1
    assert len(steps) == 0 or steps.max() <= max(1, -(-2 * window // 3))


def test_a_side_of_one_window_is_one_window():
    assert window_starts(64, 64, wrap=False) == [0]
    assert window_starts(64, 64, wrap=True) == [0]


def pixelwise(window):
    """A network that looks at one pixel: windows change nothing."""
    scores = torch.from_numpy(window.astype(np.float32)).permute(2, 0, 1) / 50
    return scores.softmax(0)


@given(st.integers(16, 60), st.integers(24, 90), st.booleans(), st.integers(0, 9))
def test_of_a_network_that_sees_single_pixels_nothing_changes(height, width, wrap, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = SlidingWindows(wrap=wrap).mean(pixelwise, image, (16, 24))
    assert torch.allclose(found, pixelwise(image), atol=1e-5)


def test_the_sides_of_a_panorama_are_seen_together():
    """A network that needs the columns beside a pixel sees them across the border, with wrap."""
    seen = []

    def predict(window):
        seen.append(window[0, :, 0].tolist())
        return torch.ones(2, *window.shape[:2])

    image = np.zeros((8, 40, 3), np.uint8)
    image[..., 0] = np.arange(40)
    SlidingWindows(wrap=True).mean(predict, image, (8, 16))
    together = [columns for columns in seen if 39 in columns and 0 in columns]
    assert together
    for columns in together:
        assert columns[columns.index(39) + 1] == 0
    seen.clear()
    SlidingWindows(wrap=False).mean(predict, image, (8, 16))
    assert not any(39 in columns and 0 in columns for columns in seen)


def test_a_window_counts_most_in_its_middle():
    answers = iter([0.0, 1.0])  # the left window's, the right one's
    image = np.zeros((9, 15, 3), np.uint8)
    found = SlidingWindows().mean(lambda _: torch.full((1, 9, 9), next(answers)), image, (9, 9))
    overlap = found[0, 4, 6:9]  # columns 6 to 8 are in both
    assert overlap.tolist() == sorted(overlap.tolist())
    assert overlap[0] < 0.3
    assert overlap[-1] > 0.7


@pytest.mark.parametrize("shift", [10, 20])
def test_turning_a_panorama_turns_its_labels(shift):
    """Whole steps of the windows: each then sees the same columns again."""
    torch.manual_seed(0)
    network = nn.Conv2d(3, 4, 5, padding=2)

    def predict(window):
        with torch.no_grad():
            return network(torch.from_numpy(window).permute(2, 0, 1)[None] / 255.0)[0].softmax(0)

    image = np.random.default_rng(0).integers(0, 256, (15, 60, 3), dtype=np.uint8)
    windows = SlidingWindows(wrap=True)
    plain = windows.mean(predict, image, (15, 15))
    turned = windows.mean(predict, np.roll(image, shift, axis=1), (15, 15))
    assert torch.allclose(torch.roll(plain, shift, dims=2), turned, atol=1e-5)
    unjoined = SlidingWindows().mean(predict, image, (15, 15))
    assert not torch.allclose(unjoined, plain, atol=1e-3)


@pytest.mark.parametrize(
    ("scale", "image_hw", "size"),
    [(1, (100, 200), (100, 200)), (0.5, (100, 200), (50, 100)), (0.1, (100, 200), (32, 64)),
     (1, (20, 40), (32, 64)), (1, (20, 200), (32, 320))],
)  # fmt: skip
def test_images_are_resized_by_the_scale_but_never_below_a_window(scale, image_hw, size):
    assert SlidingWindows(scale).scaled_hw(image_hw, (32, 64)) == size


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
def test_a_scale_that_is_impossible_is_an_error(scale):
    with pytest.raises(DataError, match="must be above 0"):
        SlidingWindows(scale)


def test_an_image_that_becomes_too_large_is_named():
    with pytest.raises(DataError, match="4000x3000 become 40000x30000"):
        SlidingWindows(10).scaled_hw((3000, 4000), (256, 512))


@pytest.fixture
def frames(tmp_path):
    """Two labelled frames of the packaged clip."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for number, sample in enumerate(open_images("streetsynth:clip").samples[:2]):
        Image.fromarray(sample.image()).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(sample.label_map()).save(tmp_path / "labels" / f"{number}.png")
    return tmp_path


def test_evaluate_cuts_images_and_says_so(frames, in_empty_folder, capsys):
    given = ["--size", "192x96", "--images", str(frames / "images")]
    given += ["--labels", str(frames / "labels")]
    assert cli.main(["evaluate", *given, "--windows", "1", "--wrap", "--out", "cut"]) == 0
    record = json.loads((in_empty_folder / "cut" / "evaluation.json").read_text())
    assert record["windows"] == "of the input size, images at scale 1, the sides joined"
    assert cli.main(["evaluate", *given, "--out", "whole"]) == 0
    whole = json.loads((in_empty_folder / "whole" / "evaluation.json").read_text())
    assert "windows" not in whole
    assert whole["confusion"] != record["confusion"]
    labels = frames / "labels"
    windows = sfda_edge.SlidingWindows(wrap=True)
    again = sfda_edge.evaluate(
        None, frames / "images", labels=labels, size_hw=(96, 192), windows=windows
    )
    assert again.confusion.counts.tolist() == record["confusion"]
    assert cli.main(["evaluate", *given, "--wrap"]) == 2
    assert "give --windows SCALE" in capsys.readouterr().err
    assert cli.main(["evaluate", *given, "--windows", "-1"]) == 2
    assert "must be above 0, 16 at most, got -1" in capsys.readouterr().err


def test_one_window_of_the_whole_image_is_the_resized_image():
    source = sfda_edge.load_model(size_hw=(96, 192))
    image = np.random.default_rng(0).integers(0, 256, (192, 384, 3), dtype=np.uint8)
    whole = Predictor(source.network, source.spec, torch.device("cpu"))
    one = Predictor(source.network, source.spec, torch.device("cpu"), windows=SlidingWindows(0.5))
    assert np.array_equal(one.label_map(image), whole.label_map(image))
