"""Windows as images: they cover the image, and are those that ``evaluate`` sees."""

import json

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

import sfda_edge
from runtime.bundle.labels import LabelSpace
from runtime.bundle.manifest import read_manifest
from runtime.images import ImageError, resize_image, resize_label_map
from sfda_edge.cli import main as cli
from sfda_edge.data import open_images
from sfda_edge.data.images import ImageSet, Sample, images_in_memory
from sfda_edge.data.loading import read_all
from sfda_edge.data.windows import recorded_windows, windows_of
from sfda_edge.errors import DataError
from sfda_edge.models.sliding_windows import SlidingWindows

WINDOW_HW = (16, 24)


def coordinates(height, width):
    """An image whose pixels tell where they are, modulo 256, and its labels."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows % 256, columns % 256, (rows + columns) % 256], -1).astype(np.uint8)


@given(st.integers(16, 70), st.integers(24, 90), st.booleans(), st.sampled_from([0.6, 1.0, 1.7]))
@example(53, 40, False, 0.6)  # a row was left over by rounding
def test_windows_cover_every_pixel_and_have_the_networks_shape(height, width, wrap, scale):
    image = coordinates(height, width)
    windows = SlidingWindows(scale, wrap=wrap)
    cut = windows_of(images_in_memory([image]), windows, WINDOW_HW)
    covered = np.zeros((height, width), int)
    for sample in cut.samples:
        found = sample.image()
        assert abs(found.shape[0] / found.shape[1] / (16 / 24) - 1) < 0.15 or len(cut) == 1
        covered[found[:, 0, 0][:, None], found[0, :, 1][None]] += 1
        rows, columns = found[:, :1, 0].astype(int), found[:1, :, 1].astype(int)
        assert np.array_equal(found, image[rows, columns])
    assert covered.min() >= 1
    assert len({sample.name for sample in cut.samples}) == len(cut)


def test_they_are_the_windows_that_evaluate_sees():
    image = np.random.default_rng(0).integers(0, 256, (40, 100, 3), dtype=np.uint8)
    seen = []

    def predict(window):
        seen.append(window)
        return torch.zeros(2, *WINDOW_HW)

    for wrap in (False, True):
        windows = SlidingWindows(1.0, wrap=wrap)
        seen.clear()
        windows.mean(predict, image, WINDOW_HW)
        cut = windows_of(images_in_memory([image]), windows, WINDOW_HW)
        assert [sample.image().tobytes() for sample in cut.samples] == [
            window.tobytes() for window in seen
        ]


def test_at_another_scale_they_keep_the_images_own_resolution():
    """So that views of larger sizes see what the image has, and not an enlarged window."""
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    cut = windows_of(images_in_memory([image]), SlidingWindows(0.5), WINDOW_HW)
    first = cut.samples[0].image()
    assert first.shape == (32, 48, 3)
    assert np.array_equal(first, image[:32, :48])
    assert resize_image(first, WINDOW_HW).shape == (*WINDOW_HW, 3)


def test_labels_are_cut_alike_and_nothing_stays_whole_without_windows():
    image = coordinates(40, 60)
    whole = Sample("street", lambda: image, lambda: image[..., 0])
    images = ImageSet("streets", (whole,))
    assert windows_of(images, None, WINDOW_HW) is images
    cut = windows_of(images, SlidingWindows(), WINDOW_HW)
    assert cut.labelled
    for sample in cut.samples:
        assert np.array_equal(sample.label_map(), sample.image()[..., 0])
    assert cut.title == f"{len(cut)} windows of streets"
    assert cut.samples[0].name == "street-window1"


def test_a_damaged_image_is_found_damaged_by_who_reads_it():
    def broken():
        raise ImageError("street.png: truncated")

    good = images_in_memory([coordinates(32, 48)]).samples
    images = ImageSet("streets", (Sample("street", broken), *good))
    cut = windows_of(images, SlidingWindows(), WINDOW_HW)
    assert cut.samples[0].name == "street"
    with pytest.raises(ImageError, match="truncated"):
        cut.samples[0].image()
    assert len(cut) > 2


def test_what_becomes_too_large_is_named():
    images = images_in_memory([np.zeros((1500, 1500, 3), np.uint8)])
    with pytest.raises(DataError, match="choose a smaller scale"):
        windows_of(images, SlidingWindows(16.0), WINDOW_HW)


@pytest.mark.parametrize("labels_hw", [(80, 120), (20, 30)])
def test_label_maps_of_another_size_are_refused_as_those_of_whole_images(labels_hw):
    whole = Sample("street", lambda: coordinates(40, 60), lambda: np.zeros(labels_hw, np.uint8))
    cut = windows_of(ImageSet("streets", (whole,)), SlidingWindows(), WINDOW_HW)
    space = LabelSpace(("road", "car"), ((0, 0, 0), (1, 1, 1)))
    with pytest.raises(DataError, match="street: expected 60x40"):
        list(read_all(cut, space))


def test_an_image_is_decoded_once_for_its_size_and_once_for_its_windows():
    decoded = []

    def image():
        decoded.append(1)
        return coordinates(60, 200)

    cut = windows_of(ImageSet("streets", (Sample("street", image),)), SlidingWindows(), WINDOW_HW)
    assert len(list(read_all(cut, None))) == len(cut) > 20, "by two threads"
    assert len(decoded) == 2


@pytest.mark.parametrize(
    "record",
    [{"scale": -1.0}, {"scale": 1e308}, {"scale": 60}, {"scale": "x"}, [0.5], {"wrap": 3}, 7],
)
def test_a_damaged_record_of_windows_is_an_error(record):
    with pytest.raises(DataError, match=r"inputs\.windows"):
        recorded_windows({"windows": record})
    assert recorded_windows({}) is recorded_windows({"windows": None}) is None


@pytest.fixture
def panoramas(in_empty_folder):
    """Three packaged frames of 768x192, each joined to its mirror image, and their labels."""
    for name in ("panoramas", "labels"):
        (in_empty_folder / name).mkdir()
    for sample in open_images("streetsynth:source").samples[:3]:
        frame = resize_image(sample.image(), (192, 384))
        labels = resize_label_map(sample.label_map(), (192, 384))
        for folder, picture in (("panoramas", frame), ("labels", labels)):
            joined = np.concatenate([picture, picture[:, ::-1]], 1)
            Image.fromarray(joined).save(in_empty_folder / folder / f"{sample.name}.png")
    return in_empty_folder / "panoramas"


@pytest.mark.slow
@pytest.mark.usefixtures("few_views")
def test_a_network_is_adapted_to_windows_and_compared_on_them(panoramas, capsys, caplog):
    cut = ["--windows", "0.5", "--wrap"]
    begun = ["adapt", "--method", "bn", "--images", str(panoramas), "--size", "96x48", *cut]
    scored = ["--validation", str(panoramas), "--validation-labels", "labels"]
    begun += ["--keep", "last"]
    assert cli.main([*begun, *scored, "--set", "num_images=8", "--out", "run"]) == 0
    run = json.loads((panoramas.parent / "run" / "run.json").read_text())
    assert run["inputs"]["windows"] == {"scale": 0.5, "wrap": True}
    hashes = (panoramas.parent / "run" / "target.sha256").read_text().splitlines()
    assert len(hashes) == 3 * 3 * 6  # three rows, and six columns around
    labelled = ["evaluate", "run", "--images", str(panoramas), "--labels", "labels"]
    assert cli.main([*labelled, *cut]) == 0
    evaluated = json.loads((panoramas.parent / "evaluation" / "evaluation.json").read_text())
    assert run["result"]["validation"][1]["miou"] == evaluated["miou"], "scored in windows, too"
    assert "not scored so" not in caplog.text
    sfda_edge.evaluate("run", panoramas, labels=panoramas.parent / "labels")
    assert "is not scored so" in caplog.text
    loose = ["--set", "fp16.class_iou=0.5", "--set", "gate_images=4"]
    caplog.set_level("INFO")
    assert cli.main(["export", "run", *loose]) == 0
    assert "gate: 4 frames of 54 windows of" in caplog.text, "as the run cut its images"
    assert read_manifest(panoramas.parent / "bundle").input_hw == (48, 96)
    provenance = read_manifest(panoramas.parent / "bundle").provenance
    assert provenance["windows"] == {"scale": 0.5, "wrap": True}
    card = (panoramas.parent / "bundle" / "card.md").read_text()
    assert (
        "It was adapted to windows of the input size, images at scale 0.5, the sides joined" in card
    )
    assert cli.main(["trace", "run"]) == 0, "the target images are those of the run"
    smaller = ["--size", "64x32", "--out", "smaller"]
    assert cli.main(["export", "run", *smaller, *loose]) == 0, "of other windows of the same images"
    assert "scale 0.5, the sides joined" in (panoramas.parent / "run" / "report.html").read_text()
    record = panoramas.parent / "run" / "run.json"
    record.write_text(json.dumps(run | {"inputs": run["inputs"] | {"windows": {"scale": -1}}}))
    capsys.readouterr()
    assert cli.main(["export", "run", *loose]) == 2
    assert "inputs.windows" in capsys.readouterr().err


def test_sides_are_joined_only_with_windows(panoramas, capsys):
    assert cli.main(["adapt", "--images", str(panoramas), "--wrap"]) == 2
    assert "--windows SCALE" in capsys.readouterr().err
