import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from runtime.images import ImageError
from runtime.packaged import CLIP, CLIP_DIR
from runtime.sources.video_file import video_frames
from sfda_edge.data import open_images, recorded_spec, video
from sfda_edge.data.images import Sample, checked_label_map
from sfda_edge.data.loading import read_all
from sfda_edge.data.video import MAX_UNLABELLED_FRAMES
from sfda_edge.errors import DataError


def test_a_folder_with_labels(labelled_folder, three_classes):
    images = open_images(str(labelled_folder / "images"), labelled_folder / "labels")
    assert len(images) == 6
    assert images.labelled
    for loaded in read_all(images, three_classes):
        # The fixture draws grey level 80 x label + 20.
        assert loaded.image.shape == (24, 40, 3)
        np.testing.assert_array_equal(loaded.image[..., 0], loaded.label_map * 80 + 20)


@pytest.mark.parametrize("image_ending", [".jpg", ".PNG"])
def test_masks_beside_their_images_are_no_images(
    labelled_folder, three_classes, image_ending, caplog
):
    caplog.set_level("INFO")
    both = labelled_folder / "both"
    shutil.copytree(labelled_folder / "labels", both)
    for path in (labelled_folder / "images").iterdir():
        Image.open(path).save(both / f"{path.stem}{image_ending}", quality=100)
    images = open_images(str(both), both)
    assert [sample.name for sample in images.samples] == [f"{i}{image_ending}" for i in range(6)]
    assert "6 of 12 files are label maps" in caplog.text
    others = [os.path.relpath(both), f"{both.parent}/labels/../both"]
    assert [len(open_images(str(both), Path(other))) for other in others] == [6, 6]
    for loaded in read_all(images, three_classes):
        assert np.abs(loaded.image[..., 0] - (loaded.label_map * 80.0 + 20)).mean() < 20


def test_an_image_is_not_its_own_label_map_and_has_one_of_its_own(labelled_folder):
    images = labelled_folder / "images"
    with pytest.raises(DataError, match=r"0\.png would be its own label map"):
        open_images(str(images), images)
    shutil.copy(images / "3.png", images / "3.jpg")
    with pytest.raises(DataError, match=r"3\.jpg and 3\.png have the same label map"):
        open_images(str(images), labelled_folder / "labels")


def test_masks_that_fit_the_template_of_images_are_no_images(labelled_folder):
    for path in (labelled_folder / "labels").iterdir():
        path.rename(labelled_folder / "images" / f"{path.stem}_mask.png")
    described = labelled_folder / "drives.toml"
    lines = [
        'images = "images/{f}.png"',
        'labels = "images/{f}_mask.png"',
        'classes = ["a", "b", "c"]',
    ]
    described.write_text("\n".join(lines))
    images = open_images(str(described))
    assert len(images) == 6
    assert images.labelled


def test_a_linked_description_is_recorded_where_it_was_named(labelled_folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    original = tmp_path / "elsewhere" / "set.toml"
    original.write_text('images = "images/{f}.png"\nclasses = ["a", "b"]')
    (labelled_folder / "set.toml").symlink_to(original)
    recorded = recorded_spec(labelled_folder / "set.toml")
    assert len(open_images(recorded)) == 6


def test_a_folder_of_labels_is_not_for_arrays(labelled_folder):
    with pytest.raises(DataError, match="not for arrays"):
        open_images([np.zeros((4, 4, 3), np.uint8)], labelled_folder / "labels")


def test_a_missing_label_map_is_named(labelled_folder):
    (labelled_folder / "labels" / "3.png").unlink()
    with pytest.raises(DataError, match=r"no label map for 1 of 6 images, first 3\.png"):
        open_images(str(labelled_folder / "images"), labelled_folder / "labels")


def test_images_of_subfolders_are_found_with_their_labels(labelled_folder):
    """As Cityscapes keeps its cities; the same name may come twice."""
    images, labels = labelled_folder / "images", labelled_folder / "labels"
    for kind in (images, labels):
        for city, number in (("aachen", 0), ("bochum", 0), ("bochum", 5)):
            (kind / city).mkdir(exist_ok=True)
            shutil.copy(kind / f"{number}.png", kind / city)
        for path in kind.glob("*.png"):
            path.unlink()
    (images / ".thumbnails").mkdir()
    shutil.copy(images / "aachen" / "0.png", images / ".thumbnails")
    with pytest.raises(
        DataError, match=r"subfolders do: bochum \(2\), aachen \(1\)\. .*images/\*\* takes them all"
    ):
        open_images(str(images), labels)
    assert recorded_spec(f"{images}/**") == f"{images.resolve()}/**"
    found = open_images(f"{images}/**", labels)
    names = [sample.name for sample in found.samples]
    assert names == ["aachen/0.png", "bochum/0.png", "bochum/5.png"]
    assert len(list(read_all(found, None))) == 3
    (labels / "bochum" / "0.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 images, first bochum/0\.png"):
        open_images(f"{images}/**", labels)
    with pytest.raises(DataError, match="nowhere does not exist"):
        open_images(f"{images}/nowhere/**")


def test_a_subfolder_that_cannot_be_read_is_an_error(labelled_folder, monkeypatch):
    closed = labelled_folder / "images" / "closed"
    closed.mkdir()
    scandir = os.scandir

    def refusing(path):
        if str(path) == str(closed):  # as for anybody but root
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refusing)
    assert len(open_images(str(labelled_folder / "images"))) == 6
    with pytest.raises(DataError, match="closed cannot be read: Permission denied"):
        open_images(f"{labelled_folder}/images/**")


@pytest.fixture
def cityscapes(tmp_path):
    """Two images of two cities; one has the official scripts' labelTrainIds, one labelIds alone."""
    images, labels = (tmp_path / kind / "val" for kind in ("leftImg8bit", "gtFine"))
    for city, suffix, value in (("aachen", "labelTrainIds", 18), ("bochum", "labelIds", 33)):
        for folder in (images / city, labels / city):
            folder.mkdir(parents=True)
        stem = f"{city}_000000_000019"
        pixels = np.full((8, 16, 3), 100, np.uint8)
        Image.fromarray(pixels).save(images / city / f"{stem}_leftImg8bit.png")
        label_map = np.full((8, 16), value, np.uint8)
        label_map[0] = 255 if suffix == "labelTrainIds" else 4
        label_map[1, 0] = 0 if suffix == "labelTrainIds" else 7
        Image.fromarray(label_map).save(labels / city / f"{stem}_gtFine_{suffix}.png")
    return tmp_path


def test_cityscapes_is_read_as_it_is_released(cityscapes, monkeypatch):
    monkeypatch.chdir(cityscapes / "leftImg8bit")
    assert open_images("cityscapes:val").labelled
    images = open_images(f"cityscapes:{cityscapes}/leftImg8bit/val")
    assert [s.name for s in images.samples] == [
        f"{city}/{city}_000000_000019_leftImg8bit.png" for city in ("aachen", "bochum")
    ]
    first, second = (loaded.label_map for loaded in read_all(images, images.label_space))
    np.testing.assert_array_equal(first, second)
    assert images.label_space.names[first[4, 4]] == "bicycle"
    assert images.label_space.names[first[1, 0]] == "road"
    assert set(first[0]) == {255}
    (cityscapes / "gtFine" / "val" / "bochum").rename(cityscapes / "elsewhere")
    images = open_images(f"cityscapes:{cityscapes}/leftImg8bit/val")
    with pytest.raises(DataError, match=r"1 of 2 samples cannot be used.*\s.*bochum_0.*no label"):
        list(read_all(images, images.label_space))
    (cityscapes / "gtFine").rename(cityscapes / "gone")
    assert not open_images(f"cityscapes:{cityscapes}/leftImg8bit/val").labelled


def test_labelids_are_those_of_the_official_scripts(cityscapes):
    """Names beside numbers, as cityscapesScripts' labels.py lists them."""
    official = {
        **dict(zip(("road", "sidewalk", "building", "wall", "fence"), (7, 8, 11, 12, 13))),
        **{"pole": 17, "traffic light": 19, "traffic sign": 20, "vegetation": 21, "terrain": 22},
        **{"sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28},
        **{"train": 31, "motorcycle": 32, "bicycle": 33},
    }
    path = cityscapes / "gtFine/val/bochum/bochum_000000_000019_gtFine_labelIds.png"
    ids = np.arange(128, dtype=np.uint8).reshape(8, 16)
    Image.fromarray(ids).save(path)
    images = open_images(f"cityscapes:{cityscapes}/leftImg8bit/val")
    found = images.samples[1].label_map().ravel()
    names = {number: images.label_space.names[i] for number, i in enumerate(found) if i != 255}
    assert names == {number: name for name, number in official.items()}


@pytest.mark.parametrize("where", ["", "/leftImg8bit", "/leftImg8bit/train", "/train"])
def test_what_is_not_a_split_of_cityscapes_says_what_is(cityscapes, where):
    with pytest.raises(DataError, match=r"give FOLDER/SPLIT|expected leftImg8bit/train"):
        open_images(f"cityscapes:{cityscapes}{where}")


def spoil(folder):
    """A truncated image, a label of another size, an id outside the space."""
    path = folder / "images" / "0.png"
    path.write_bytes(path.read_bytes()[:40])
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(folder / "labels" / "1.png")
    Image.fromarray(np.full((24, 40), 7, np.uint8)).save(folder / "labels" / "2.png")
    return open_images(str(folder / "images"), folder / "labels")


def test_bad_samples_are_named_and_counted(labelled_folder, three_classes):
    with pytest.raises(DataError) as caught:
        list(read_all(spoil(labelled_folder), three_classes))
    message = str(caught.value)
    assert "3 of 6 samples cannot be used" in message
    assert "0.png" in message
    assert "1.png: the label map is 5x5 but the image 40x24" in message
    assert "2.png: label 7 is outside the 3 classes" in message


def test_labels_of_255_are_ignored_whatever_the_space_says(three_classes):
    space = replace(three_classes, ignore_index=7)
    labels = np.array([[0, 2, 255, 7]], np.uint8)
    sample = Sample("one", lambda: np.zeros((1, 4, 3), np.uint8), lambda: labels)
    found = checked_label_map(sample, sample.image(), space)
    assert found.tolist() == [[0, 2, 7, 7]]
    assert found.dtype == np.uint8
    labels[0, 0] = 9
    with pytest.raises(DataError, match=r"label 9 is outside .*\(ignored: 7 and 255\)"):
        checked_label_map(sample, sample.image(), space)


def test_bad_samples_are_left_out_when_asked(labelled_folder, three_classes, caplog):
    with caplog.at_level(logging.WARNING):
        kept = [x.name for x in read_all(spoil(labelled_folder), three_classes, skip_bad=True)]
    assert kept == ["3.png", "4.png", "5.png"]
    assert "3 of 6 samples are left out" in caplog.text


def test_nothing_left_is_an_error_even_when_skipping(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="1 of 1"):
        list(read_all(open_images(str(tmp_path)), None, skip_bad=True))


def test_the_ignored_label_is_no_foreign_label(labelled_folder, three_classes):
    Image.fromarray(np.full((24, 40), 255, np.uint8)).save(labelled_folder / "labels" / "0.png")
    images = open_images(str(labelled_folder / "images"), labelled_folder / "labels")
    sample = images.samples[0]
    assert (checked_label_map(sample, sample.image(), three_classes) == 255).all()


def test_long_videos_are_thinned_evenly(tmp_path):
    path, count = tmp_path / "long.avi", MAX_UNLABELLED_FRAMES + 90
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (32, 32))
    for _ in range(count):
        writer.write(np.zeros((32, 32, 3), np.uint8))
    writer.release()
    assert len(open_images(str(path))) == (count + 1) // 2


def test_of_large_frames_fewer_are_kept_and_it_is_said(monkeypatch, caplog):
    caplog.set_level("INFO")
    open_images(str(CLIP))
    assert "is used" not in caplog.text
    monkeypatch.setattr("sfda_edge.data.video._MOST_BYTES", 20 * 360 * 480 * 3)
    images = open_images(str(CLIP))  # 72 frames
    assert [sample.name for sample in images.samples] == [f"clip_{i:05d}" for i in range(18)]
    expected = list(video_frames(CLIP))[::4]
    for sample, frame in zip(images.samples, expected, strict=True):
        assert np.array_equal(sample.image(), frame)
    assert "clip.mp4: one of 4 frames is used, 18 of 72" in caplog.text


def test_label_maps_of_a_video_are_in_the_order_of_their_numbers(tmp_path):
    (tmp_path / "labels").mkdir()
    for index in range(72):
        image = Image.fromarray(np.full((360, 480), index, np.uint8))
        image.save(tmp_path / "labels" / f"frame_{index}.png")
    images = open_images(str(CLIP), tmp_path / "labels")
    assert [int(sample.label_map()[0, 0]) for sample in images.samples] == list(range(72))


def test_labelled_frames_are_the_same_in_any_order():
    """Readers that take turns, a second reading, and single frames."""
    clip = open_images("streetsynth:clip")
    expected = list(video_frames(CLIP))
    order = [*(i ^ 1 for i in range(72)), 5, 71, 0, 70, 70]
    for index in order:
        assert np.array_equal(clip.samples[index].image(), expected[index])
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda sample: sample.image(), clip.samples))
    assert all(np.array_equal(one, other) for one, other in zip(read, expected, strict=True))


def test_labelled_frames_are_decoded_once_when_read_in_order(monkeypatch):
    opened = []
    plain = video.video_frames
    monkeypatch.setattr(video, "video_frames", lambda path: opened.append(path) or plain(path))
    clip = open_images("streetsynth:clip")
    list(read_all(clip, clip.label_space))
    assert len(opened) == 2  # to count them, and to read them


def test_a_video_that_has_gone_is_a_damaged_sample(tmp_path):
    path = tmp_path / "clip.mp4"
    shutil.copy(CLIP, path)
    images = open_images(str(path), CLIP_DIR / "labels")
    path.unlink()
    with pytest.raises(ImageError, match=r"frame 3 cannot be read: .*is not a file"):
        images.samples[3].image()
    shutil.copy(CLIP, path)
    assert images.samples[3].image().shape == (360, 480, 3)


def test_the_packaged_sets():
    source, target, clip = (open_images(f"streetsynth:{p}") for p in ("source", "target", "clip"))
    assert (len(source), source.labelled) == (20, True)
    assert (len(target), target.labelled) == (40, False)
    assert (len(clip), clip.labelled) == (72, True)
    list(read_all(clip, clip.label_space))
    list(read_all(source, source.label_space))


def test_camvid(real_data):
    images = open_images(f"camvid:{real_data / 'data/camvid/val'}")
    assert len(images) == 101
    first = next(iter(read_all(images, images.label_space)))
    assert first.image.shape == (360, 480, 3)
    assert not open_images(f"camvid:{real_data / 'data/camvid/train'}").labelled


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere", "'nowhere' does not exist; give a folder, a video file"),
        ("camvid:nowhere", "give FOLDER/SPLIT with a split of train, val, test"),
        ("streetsynth:nowhere", "expected one of source, target, clip"),
        ("nothing.mp4", "is not a file"),
    ],
)
def test_what_is_not_there_is_an_error(spec, message):
    with pytest.raises(DataError, match=message):
        open_images(spec)


def test_a_spec_can_be_said_for_every_folder(in_empty_folder):
    (in_empty_folder / "split").mkdir()
    assert recorded_spec("split") == str(in_empty_folder / "split")
    assert recorded_spec("camvid:split") == f"camvid:{in_empty_folder / 'split'}"
    (in_empty_folder / "target").mkdir()  # must not be taken for the packaged part
    assert recorded_spec("streetsynth:target") == "streetsynth:target"


def test_a_city_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "leftImg8bit" / "val" / "bonn").mkdir(parents=True)
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("bonn"):  # as for anybody but root
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refusing)
    with pytest.raises(DataError, match="bonn cannot be read: Permission denied"):
        open_images(f"cityscapes:{tmp_path}/leftImg8bit/val")
