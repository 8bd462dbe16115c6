"""Each data set in its official layout and encoding, against the numbers of its own description."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import official_layouts as official
import pytest
from official_layouts import IMAGE_HW, OFFICIAL, values
from PIL import Image

from runtime.images import ImageError
from sfda_edge.data import open_images, recorded_spec
from sfda_edge.data.datasets import DATASETS
from sfda_edge.data.images import checked_label_map
from sfda_edge.data.relabel import in_classes_of
from sfda_edge.errors import DataError
from sfda_edge.labels.label_spaces import LABEL_SPACES


@pytest.fixture(params=OFFICIAL)
def layout(request, tmp_path):
    """A data set's name, its folder, and how many images each split has."""
    name, write, counts = OFFICIAL[request.param]
    write(tmp_path / "data")
    return name, tmp_path / "data", counts


def test_every_split_is_read_as_it_is_released(layout):
    name, folder, counts = layout
    for split, count in counts.items():
        images = open_images(f"{name}:{folder}/{split}")
        assert len(images) == count, split
        for sample in images.samples:
            image = sample.image()
            assert image.shape[2] == 3
            if sample.label_map is not None:
                found = checked_label_map(sample, image, images.label_space)
                assert found.shape == image.shape[:2]
    assert set(counts) <= set(DATASETS[name].splits)


def test_every_data_set_has_a_layout_in_the_tests():
    assert {name for name, _, _ in OFFICIAL.values()} == set(DATASETS)


# Data set and split; raw values in the label maps, and the class of each by the description.
NUMBERED = {
    "cityscapes/val": (range(34), official.CITYSCAPES_IDS),
    "cityscapes/train": ([*range(19), 255], official.TRAIN_IDS),
    "gta5/all": (range(35), official.CITYSCAPES_IDS),
    "synthia/all": (range(23), official.SYNTHIA_IDS),
    "cross-city/Rome-test": ([*range(34), 255], official.CROSS_CITY_IDS),
    "kitti/training": (range(34), official.CITYSCAPES_IDS),
    "acdc/night-val": ([*range(19), 255], official.TRAIN_IDS),
    "bdd100k/val": ([*range(19), 255], official.TRAIN_IDS),
    "bdd100k-before/val": ([*range(19), 255], official.TRAIN_IDS),
    "mapillary/validation": (range(66), official.MAPILLARY_IDS),
    "mapillary-v2/validation": (range(66), official.MAPILLARY_IDS),
    "camvid/test": (range(12), official.CAMVID_INDICES),
    "densepass/val": ([*range(19), 255], official.TRAIN_IDS),
    "synpass/test": (range(23), official.SYNPASS_IDS),
    "endovis18/val": (range(8), official.ENDOVIS18_IDS),
    "endovis18-flat/train": (range(8), official.ENDOVIS18_IDS),
}


def names_of(label_map, space):
    """Class names of a row of labels; empty where ignored."""
    return ["" if label >= space.num_classes else space.names[label] for label in label_map]


@pytest.mark.parametrize("spec", NUMBERED)
def test_numbers_mean_what_the_data_set_says(spec, tmp_path):
    layout, split = spec.split("/")
    name, write, _ = OFFICIAL[layout]
    write(tmp_path)
    images = open_images(f"{name}:{tmp_path}/{split}")
    label_map = images.samples[0].label_map()
    numbers, classes = NUMBERED[spec]
    raw = values(numbers, label_map.shape)[0]
    expected = [classes.get(int(number), "") for number in raw]
    assert names_of(label_map[0], images.label_space) == expected
    assert (label_map == label_map[0]).all()
    assert set(images.label_space.names) == set(classes.values()), "every class occurs"


def test_label_maps_of_gta5_are_resized_to_their_images(tmp_path):
    official.gta5(tmp_path)
    images = open_images(f"gta5:{tmp_path}")
    assert [sample.name for sample in images.samples] == ["00001.png", "00002.png"]
    first, second = (sample.label_map() for sample in images.samples)
    assert first.shape == second.shape == IMAGE_HW
    with Image.open(tmp_path / "labels/00002.png") as larger:
        assert larger.size == (128, 64)


def test_polygons_of_idd_are_drawn_in_their_order(tmp_path):
    """Bands of five rows; what is deleted is left out, what is no class is ignored."""
    official.idd(tmp_path)
    images = open_images(f"idd:{tmp_path}/val")
    label_map = images.samples[0].label_map()
    column = names_of(label_map[:, 3], images.label_space)
    assert column[2::6][:5] == ["sky", "building", "terrain", "", "road"]
    assert column[31] == "vegetation"


@pytest.mark.parametrize(
    ("label", "expected"),  # csTrainId of anue_labels.py
    [("pole", "pole"), ("polegroup", ""), ("cargroup", "car"), ("group", ""), ("curb", "")],
)
def test_groups_in_polygons_are_what_they_are_groups_of(tmp_path, label, expected):
    official.idd(tmp_path)
    path = min((tmp_path / "gtFine" / "val").rglob("*.json"))
    content = json.loads(path.read_text())
    height, width = content["imgHeight"], content["imgWidth"]
    corners = [[0, 0], [width, 0], [width, height], [0, height]]
    content["objects"] = [{"label": label, "polygon": corners}]
    path.write_text(json.dumps(content))
    images = open_images(f"idd:{tmp_path}/val")
    assert names_of(images.samples[0].label_map()[3, :1], images.label_space) == [expected]


def test_masks_of_endovis_2017_are_joined_and_cropped(tmp_path):
    official.endovis17(tmp_path)
    images = open_images(f"endovis17:{tmp_path}")
    for sample, sequence in zip(images.samples, official.ENDOVIS_FOLDERS, strict=True):
        assert sample.image().shape == (1024, 1280, 3)
        label_map = sample.label_map()
        expected = np.zeros((1024, 1280), np.uint8)
        for number, instrument in enumerate(official.ENDOVIS_TYPES[sequence]):
            expected[:, 100 * number : 100 * number + 80] = instrument
        np.testing.assert_array_equal(label_map, expected)
        assert (
            names_of(label_map[0, :80], images.label_space)
            == [official.ENDOVIS17_IDS[official.ENDOVIS_TYPES[sequence][0]]] * 80
        )


def test_labels_of_stanford_are_numbers_of_its_list(tmp_path):
    official.stanford2d3d(tmp_path)
    images = open_images(f"stanford2d3d:{tmp_path}/panorama-val")
    label_map = images.samples[0].label_map()
    assert set(label_map[0]) == {255}
    raw = values([*range(14), 300])[1]
    expected = [
        "" if number == 0 else "chair" if number == 300 else official.STANFORD_NAMES[number - 1]
        for number in raw
    ]
    assert names_of(label_map[1], images.label_space) == expected
    shutil.rmtree(tmp_path / "assets")
    with pytest.raises(Exception, match=r"semantic_labels.json is missing"):
        open_images(f"stanford2d3d:{tmp_path}/panorama-val").samples[0].label_map()


def test_what_stanfords_images_show_black_is_ignored(tmp_path):
    official.stanford2d3d(tmp_path)
    for image in tmp_path.glob("area_5*/pano/rgb/*.png"):
        pixels = np.array(Image.open(image))
        pixels[:, :3] = 0
        pixels[:, 3] = (0, 0, 1)
        Image.fromarray(pixels).save(image)
    label_map = open_images(f"stanford2d3d:{tmp_path}/panorama-val").samples[0].label_map()
    assert set(label_map[:, :3].flat) == {255}
    assert set(label_map[1:, 3].flat) != {255}


def test_panoramas_that_are_trained_on_lose_their_caps(tmp_path):
    official.stanford2d3d(tmp_path)
    for kind in ("rgb", "semantic"):
        for path in tmp_path.glob(f"area_*/pano/{kind}/*.png"):
            pixels = np.full((2048, 4096, 3), 1 if kind == "rgb" else 0, np.uint8)
            pixels[320:1728, :, 2] = 4  # a ceiling between the caps
            Image.fromarray(pixels).save(path, compress_level=1)
    of = lambda part: open_images(f"stanford2d3d:{tmp_path}/{part}").samples[0]
    whole, cut = of("panorama-val"), of("panorama-train")
    assert whole.image().shape == (2048, 4096, 3)
    assert cut.image().shape == (1408, 4096, 3)
    np.testing.assert_array_equal(cut.label_map(), whole.label_map()[320:1728])


def test_a_type_without_its_mask_is_named(tmp_path):
    """Half unpacked, its instrument would be background."""
    official.endovis17(tmp_path)
    sequence, folders = next(iter(official.ENDOVIS_FOLDERS.items()))
    truth = tmp_path / f"instrument_dataset_{sequence}/ground_truth"
    (truth / "BinarySegmentation").mkdir()
    sample = open_images(f"endovis17:{tmp_path}").samples[0]
    sample.label_map()
    (truth / folders[-1] / "frame000.png").unlink()
    with pytest.raises(ImageError, match=f"{folders[-1]}/frame000.png is missing"):
        sample.label_map()


def test_colours_of_the_original_camvid_become_eleven_classes(tmp_path):
    official.camvid32(tmp_path)
    images = open_images(f"camvid32:{tmp_path}/val")
    colours = [name for name, listed in official.CAMVID32_COLOURS.items() for _ in listed]
    expected = [colours[number] for number in values(range(len(colours)))[0]]
    assert names_of(images.samples[0].label_map()[0], images.label_space) == expected
    file = tmp_path / "LabeledApproved_full/0016E5_07959_L.png"
    pixels = np.array(Image.open(file))
    pixels[0, :2] = (1, 2, 3)
    Image.fromarray(pixels).save(file)
    with pytest.raises(Exception, match=r"2 pixels have a colour of no class.*\(1, 2, 3\)"):
        images.samples[0].label_map()


# What protocols score on: a split, the model's classes, and what becomes of the data set's own.
JOINED = {
    "densepass/val": ("densepass13", {"rider": "person", "truck": "car", "train": ""}),
    "stanford2d3d/panorama-val": ("stanford2d3d8", {"beam": "", "sofa": "sofa", "wall": "wall"}),
    "synthia/all": ("cityscapes13", {"wall": "", "fence": "", "bus": "bus"}),
    "cityscapes/val": ("cityscapes16", {"terrain": "", "truck": "", "wall": "wall"}),
    "endovis18/val": ("endovis4", {"prograsp forceps": "forceps", "clip applier": ""}),
}


@pytest.mark.parametrize("spec", JOINED)
def test_labels_are_joined_to_the_model_s_classes(spec, tmp_path):
    name, split = spec.split("/")
    OFFICIAL[name][1](tmp_path)
    images = open_images(f"{name}:{tmp_path}/{split}")
    space_name, joined = JOINED[spec]
    space = LABEL_SPACES[space_name]
    found = in_classes_of(images, space)
    before = names_of(images.samples[0].label_map()[1], images.label_space)
    after = names_of(found.samples[0].label_map()[1], space)
    became = dict(zip(before, after, strict=True))
    assert joined.items() <= became.items()
    assert set(after) == {*space.names, ""}


def test_types_of_2017_are_joined_as_those_of_2018(tmp_path):
    official.endovis17(tmp_path)
    images = in_classes_of(open_images(f"endovis17:{tmp_path}"), LABEL_SPACES["endovis4"])
    rows = [sample.label_map()[0] for sample in images.samples]
    # Bands of 1: prograsp, bipolar, other, prograsp; of 6: needle driver, scissors, prograsp.
    assert [rows[0][100 * n] for n in range(4)] == [1, 1, 255, 1]
    assert [rows[1][100 * n] for n in range(4)] == [2, 3, 1, 2]
    assert [rows[2][100 * n] for n in range(2)] == [255, 255]


# ---- what users get wrong


def test_a_wrong_split_names_the_right_ones(tmp_path):
    official.cityscapes(tmp_path)
    with pytest.raises(DataError, match=r"names no split.*FOLDER/SPLIT.*train, val, test"):
        open_images(f"cityscapes:{tmp_path}/vall")
    with pytest.raises(DataError, match="names no split"):
        open_images(f"cityscapes:{tmp_path}")


def test_a_wrong_folder_says_what_was_expected(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"gta5:.*expected images/\{frame\}.png below .*empty"):
        open_images(f"gta5:{tmp_path}/empty")
    official.gta5(tmp_path / "gta")
    with pytest.raises(DataError, match="expected RGB"):
        open_images(f"synthia:{tmp_path}/gta")


def test_half_a_download_is_named(tmp_path, caplog):
    official.kitti(tmp_path)
    open_images(f"kitti:{tmp_path}/training")
    assert "2 of 200 images are there; sfda-edge data check kitti" in caplog.text
    (tmp_path / "training/semantic/000001_10.png").unlink()
    images = open_images(f"kitti:{tmp_path}/training")
    assert "no label map for 1 of 2 images, first 000001_10.png" in caplog.text
    assert images.labelled
    assert images.samples[0].label_map() is not None
    with pytest.raises(ImageError, match=r"000001_10.png has no label map; training/semantic"):
        images.samples[1].label_map()
    shutil.rmtree(tmp_path / "training/semantic")
    assert not open_images(f"kitti:{tmp_path}/training").labelled


def test_the_folder_that_a_layout_begins_with_is_understood(tmp_path, monkeypatch):
    official.cityscapes(tmp_path)
    long = open_images(f"cityscapes:{tmp_path}/leftImg8bit/val")
    short = open_images(f"cityscapes:{tmp_path}/val")
    assert [s.name for s in long.samples] == [s.name for s in short.samples]
    monkeypatch.chdir(tmp_path / "leftImg8bit")
    assert open_images("cityscapes:val").labelled
    assert recorded_spec("cityscapes:val") == f"cityscapes:{tmp_path}/leftImg8bit/val"


def test_another_data_set_above_a_missing_folder_is_not_taken(tmp_path):
    """Nor do conditions in a path widen to all of them."""
    official.cityscapes(tmp_path)
    with pytest.raises(DataError, match=r"densepass:.*expected leftImg8bit/train"):
        open_images(f"densepass:{tmp_path}/densepass/train")
    with pytest.raises(DataError, match=r"expected leftImg8bit/val"):
        open_images(f"cityscapes:{tmp_path}/gtFine/val")
    official.gta5(tmp_path / "gta")
    with pytest.raises(DataError, match=r"expected images"):
        open_images(f"gta5:{tmp_path}/gta/gta5/all")
    official.acdc(tmp_path / "acdc")
    with pytest.raises(DataError, match=r"expected rgb_anon"):
        open_images(f"acdc:{tmp_path}/acdc/rgb_anon/fog/train")


def test_more_images_than_there_are_officially_are_said(tmp_path, caplog, monkeypatch):
    official.gta5(tmp_path)
    split = replace(DATASETS["gta5"].splits["all"], num_images=3)
    monkeypatch.setitem(DATASETS, "gta5", replace(DATASETS["gta5"], splits={"all": split}))
    open_images(f"gta5:{tmp_path}")
    assert "4 of 3 images are there" in caplog.text


def test_groups_are_of_their_class_and_two_corners_are_no_polygon(tmp_path):
    official.idd(tmp_path)
    path = tmp_path / "gtFine/val/000/100_gtFine_polygons.json"
    content = json.loads(path.read_text())
    whole = official.box(0, 0, 64, 32)
    content["objects"] = [
        {"label": "cargroup", "polygon": whole},
        {"label": "sky", "polygon": []},
        {"label": "sky", "polygon": whole[:2]},
    ]
    path.write_text(json.dumps(content))
    images = open_images(f"idd:{tmp_path}/val")
    found = np.unique(images.samples[0].label_map())
    assert [images.label_space.names[label] for label in found] == ["car"]


def test_masks_of_three_channels_are_read_as_one(tmp_path):
    official.endovis17(tmp_path)
    expected = open_images(f"endovis17:{tmp_path}").samples[0].label_map()
    for path in (tmp_path / "instrument_dataset_1/ground_truth").glob("*/*.png"):
        Image.open(path).convert("RGB").save(path)
    found = open_images(f"endovis17:{tmp_path}").samples[0].label_map()
    np.testing.assert_array_equal(found, expected)


def test_numbers_that_are_no_class_of_camvid_are_an_error(tmp_path):
    official.camvid(tmp_path)
    for path in (tmp_path / "valannot").iterdir():
        official.index_image(path, values(range(32)))  # of another release
    with pytest.raises(ImageError, match="label 12, 13, 14, 15, 16 is no class"):
        open_images(f"camvid:{tmp_path}/val").samples[0].label_map()


@pytest.mark.parametrize(
    "name", ["seq_{}_frame000.png", "seq{}_frame000.png", "seq{}/frame000.png"]
)
def test_every_form_of_the_types_of_2018_is_read(name, tmp_path):
    for part, sequences in (("train", (1, 3)), ("val", (2, 15))):
        for sequence in sequences:
            file = name.format(sequence)
            official.picture(tmp_path / f"{part}/images/{file}")
            official.index_image(tmp_path / f"{part}/annotations/{file}", values(range(8)))
    for part in ("train", "val"):
        images = open_images(f"endovis18:{tmp_path}/{part}")
        assert len(images) == 2
        assert images.labelled


@pytest.mark.parametrize("name", ["seq_{:02d}_frame000.png", "seq_{}/frame000.png"])
def test_a_scored_sequence_of_2018_is_never_trained_on(name, tmp_path):
    for sequence in (1, 3, 2, 15):
        for folder in ("train", "val"):  # as if somebody had put all into both
            official.picture(tmp_path / f"{folder}/images/{name.format(sequence)}")
    for part, sequences in (("train", "13"), ("val", ("2", "15"))):
        found = open_images(f"endovis18:{tmp_path}/{part}").samples
        numbers = [int(re.search(r"seq_(\d+)", sample.name)[1]) for sample in found]
        assert [str(number) for number in numbers] == list(sequences)


def test_a_sequence_without_a_number_is_an_error(tmp_path):
    official.picture(tmp_path / "train/images/seq_one_frame000.png")
    with pytest.raises(DataError, match="has no number that says whether the sequence is scored"):
        open_images(f"endovis18:{tmp_path}/train")


def test_images_alone_say_which_labels_were_expected(tmp_path):
    official.cityscapes(tmp_path)
    shutil.rmtree(tmp_path / "gtFine")
    images = open_images(f"cityscapes:{tmp_path}/val")
    with pytest.raises(DataError, match=r"has no labels; gtFine/val/.* was expected"):
        in_classes_of(images, LABEL_SPACES["cityscapes"])
    with pytest.raises(DataError, match="which does not exist"):
        open_images(f"cityscapes:{tmp_path}/nowhere/val")


def test_images_of_the_scene_flow_set_are_not_those_of_the_segmentation_set(tmp_path):
    official.kitti(tmp_path)
    official.picture(tmp_path / "training/image_2/000000_11.png")
    images = open_images(f"kitti:{tmp_path}/training")
    assert len(images) == 2
    assert images.labelled


def test_a_data_set_of_one_split_may_lie_in_a_folder_of_its_name(tmp_path):
    official.gta5(tmp_path / "all")
    assert len(open_images(f"gta5:{tmp_path}/all")) == 2
    assert len(open_images(f"gta5:{tmp_path}/all/all")) == 2


BROKEN = {
    "no JSON": "{",
    "no objects": "{}",
    "a list": "[]",
    "no numbers": json.dumps({"imgHeight": 8, "imgWidth": 8, "objects": [{"label": "sky"}]}),
    "a corner of three": json.dumps(
        {"imgHeight": 8, "imgWidth": 8, "objects": [{"label": "sky", "polygon": [[1, 2, 3]]}]}
    ),
    "no size": json.dumps({"imgHeight": 0, "imgWidth": 8, "objects": []}),
    "a huge size": json.dumps({"imgHeight": 1e9, "imgWidth": 1e9, "objects": []}),
    "infinite": '{"imgHeight": 8, "imgWidth": 8, "objects": [{"label": "sky", "polygon": '
    "[[Infinity, 0], [1, 1], [2, 2]]}]}",
    "too deep": "[" * 100_000,
    "no finite size": '{"imgHeight": 1e400, "imgWidth": 8, "objects": []}',
    "a number without end": (
        '{"imgHeight": 8, "imgWidth": 8, "objects": [{"label": "sky", "polygon": '
        f"[[1{'0' * 400}, 0], [1, 1], [2, 2]]}}]}}"
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_damaged_polygons_are_an_error_of_that_file(case, tmp_path):
    official.idd(tmp_path)
    path = tmp_path / "gtFine/val/000/100_gtFine_polygons.json"
    path.write_text(BROKEN[case])
    with pytest.raises(Exception, match=r"100_gtFine_polygons.json") as caught:
        open_images(f"idd:{tmp_path}/val").samples[0].label_map()
    assert type(caught.value).__name__ == "ImageError"


def test_eight_bits_are_no_label_of_synthia(tmp_path):
    official.synthia(tmp_path)
    path = tmp_path / "GT/LABELS/0000000.png"
    official.colour_image(path, np.zeros((*IMAGE_HW, 3)))
    with pytest.raises(Exception, match="16 bits and three channels"):
        open_images(f"synthia:{tmp_path}").samples[0].label_map()
    path.write_bytes(b"")
    with pytest.raises(Exception, match="16 bits"):
        open_images(f"synthia:{tmp_path}").samples[0].label_map()
