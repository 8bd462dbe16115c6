import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sfda_edge.data import open_images, recorded_spec
from sfda_edge.errors import DataError

BASE = """\
images = "frames/{drive}/{frame}.png"
labels = "masks/{drive}/{frame}_mask.png"
classes = ["road", "car"]
"""


UNLABELLED = "".join(line for line in BASE.splitlines(True) if not line.startswith("labels"))


@pytest.fixture
def folder(tmp_path):
    """Two frames of two drives; the first row of labels is 0, then 1, the last 9."""
    for drive, frame in (("a", "1"), ("b", "7")):
        for name in ("frames", "masks"):
            (tmp_path / name / drive).mkdir(parents=True)
        pixels = np.full((4, 6, 3), 100, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"frames/{drive}/{frame}.png")
        labels = np.repeat(np.array([[0], [1], [255], [9]], np.uint8), 6, axis=1)
        Image.fromarray(labels).save(tmp_path / f"masks/{drive}/{frame}_mask.png")
    return tmp_path


def open_toml(folder, text):
    (folder / "mine.toml").write_text(text)
    return open_images(f"{folder}/mine.toml")


def first_column(images):
    return images.samples[0].label_map()[:, 0].tolist()


def test_images_and_labels_are_paired_by_the_fields_of_their_paths(folder):
    images = open_toml(folder, BASE + "ignored = [9]\n")
    assert [sample.name for sample in images.samples] == ["a/1.png", "b/7.png"]
    assert images.labelled
    assert images.label_space.names == ("road", "car")
    assert first_column(images) == [0, 1, 255, 255]
    assert recorded_spec(f"{folder}/mine.toml") == str(folder / "mine.toml")


def test_a_class_has_the_numbers_that_the_file_gives_it(folder):
    images = open_toml(folder, BASE + "ignored = [0]\n[numbers]\ncar = [1, 9]\nroad = [3]\n")
    assert first_column(images) == [255, 1, 255, 1]


def test_labels_may_be_colours(folder):
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[1], pixels[2], pixels[3] = (128, 64, 128), (0, 0, 142), (0, 0, 143)
    for path in folder.glob("masks/*/*.png"):
        Image.fromarray(pixels).save(path)
    colours = "[colours]\nroad = [[128, 64, 128]]\ncar = [[0, 0, 142], [0, 0, 143]]\n"
    images = open_toml(folder, BASE + "ignored = [[0, 0, 0]]\n" + colours)
    assert first_column(images) == [255, 0, 1, 1]


def test_images_alone_are_enough_and_may_lie_elsewhere(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    images = open_toml(
        elsewhere,
        f'images = "{{drive}}/{{frame}}.png"\nfolder = "{folder}/frames"\nclasses = "cityscapes"\n',
    )
    assert len(images) == 2
    assert not images.labelled
    assert images.label_space.num_classes == 19


def test_what_a_known_label_space_ignores_is_ignored(folder):
    for path in folder.glob("masks/*/*.png"):
        Image.fromarray(np.full((4, 6), 11, np.uint8)).save(path)
    text = BASE.replace('["road", "car"]', '"camvid"')
    assert first_column(open_toml(folder, text)) == [255] * 4
    with pytest.raises(Exception, match="label 11 is no class"):
        first_column(open_toml(folder, text + "[numbers]\nroad = [1]\n"))


@pytest.mark.parametrize(
    "images", ["frames/{drive}/{frame}.png", "frames/{drive}/{frame}.{ending}"]
)
def test_two_images_of_one_label_map_are_an_error(folder, images):
    shared = folder / "masks/1_mask.png"
    (folder / "masks/a/1_mask.png").rename(shared)
    (folder / "frames/b/7.png").rename(folder / "frames/b/1.png")
    text = BASE.replace("frames/{drive}/{frame}.png", images).replace("masks/{drive}/", "masks/")
    message = "frames/a/1.png and frames/b/1.png have the same label map, masks/1_mask.png"
    with pytest.raises(DataError, match=message):
        open_toml(folder, text)


def test_one_label_map_may_be_meant_for_all(folder):
    (folder / "masks/a/1_mask.png").rename(folder / "one.png")
    text = BASE.replace("masks/{drive}/{frame}_mask.png", "one.png") + "ignored = [9]\n"
    images = open_toml(folder, text)
    assert [sample.label_map()[1, 0] for sample in images.samples] == [1, 1]


def test_endings_in_capitals_pair_as_others_do(folder):
    """A mask beside its image is no image."""
    for path in folder.glob("*/*/*.png"):
        drive, capital = path.parent.name, path.name.replace(".png", ".PNG")
        (folder / "both" / drive).mkdir(parents=True, exist_ok=True)
        path.rename(folder / "both" / drive / capital)
    text = BASE.replace("frames/", "both/").replace("masks/", "both/") + "ignored = [9]\n"
    images = open_toml(folder, text)
    assert [sample.name for sample in images.samples] == ["a/1.PNG", "b/7.PNG"]
    assert first_column(images) == [0, 1, 255, 255]


def test_a_field_may_be_a_whole_name(folder):
    for drive in "ab":
        (folder / f"frames/{drive}.png").touch()
    assert len(open_toml(folder, 'images = "frames/{file}"\nclasses = ["road", "car"]\n')) == 2


def test_a_file_that_names_no_labels_cannot_be_scored(folder):
    from sfda_edge.data.relabel import in_classes_of

    images = open_toml(folder, UNLABELLED)
    with pytest.raises(DataError, match=r"mine\.toml has no labels$"):
        in_classes_of(images, images.label_space)


def test_a_number_in_no_class_is_an_error_of_that_file(folder):
    with pytest.raises(Exception, match=r"1_mask.png: label 9 is no class"):
        first_column(open_toml(folder, BASE))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "images must be a text, found None"),
        (BASE.replace("frames/", "../"), "no relative path below a folder"),
        (BASE.replace("{frame}_", "{name}_"), r"labels has \{name\}, which images does not have"),
        (BASE + "colour = 1\n", "unknown colour; known: images"),
        (BASE.replace('["road", "car"]', '"atlantis"'), "unknown classes 'atlantis'"),
        (BASE.replace('["road", "car"]', "3"), "classes must be a list of names"),
        (BASE.replace('["road", "car"]', '["road"]'), "needs 2 to 255 classes"),
        (BASE + "[numbers]\nbus = [1]\n", r"\[numbers\] has 'bus', which is no class"),
        (BASE + "[numbers]\ncar = [1]\nroad = [1]\n", r"\[numbers\] has 1 twice"),
        (BASE + "[numbers]\ncar = 1\n", "must have lists"),
        (BASE + "[numbers]\ncar = [256]\n", "256 is no number from 0 to 255"),
        (BASE + "[colours]\ncar = [1]\n", "1 is no colour"),
        (BASE + "ignored = 3\n", "ignored must have lists"),
        (BASE + "[colours]\n[numbers]\n", "not in both"),
        (BASE + "palette = [[1, 2, 3]]\n", "2 class names but 1 colours"),
        (BASE.replace("frames/", "pictures/"), "no images pictures/"),
        (BASE.replace("masks/", "maskes/"), "no label maps maskes/"),
        (BASE + "ignored = [0]\n", "0 is ignored and of a class, too"),
        (BASE + "[colours]\n", "no class has a colour"),
        (UNLABELLED + "ignored = [0]\n", "ignored is of labels, and no labels are named"),
        (UNLABELLED + "[numbers]\nroad = [1]\n", "numbers is of labels"),
        (BASE.replace("masks/{drive}/{frame}_mask", "frames/{drive}/{frame}"), "images themselves"),
        (UNLABELLED.replace(".png", ".jp2"), "images end in '.jp2', which is not read"),
        (
            UNLABELLED.replace('["road", "car"]', '"camvid"') + "palette = [[1, 2, 3]]\n",
            "'camvid' has its own",
        ),
    ],
)
def test_what_describes_no_data_set_is_an_error(folder, text, message):
    with pytest.raises(DataError, match=message):
        open_toml(folder, text)


def test_labels_of_another_folder_are_not_for_a_toml_file(folder):
    (folder / "mine.toml").write_text(BASE)
    with pytest.raises(DataError, match="finds its own label maps"):
        open_images(f"{folder}/mine.toml", folder / "masks")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.text("ab/{}.", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=6,
)


@settings(max_examples=150)
@given(
    st.dictionaries(
        st.sampled_from(
            ["images", "labels", "folder", "classes", "palette", "colours", "numbers", "ignored"]
        ),
        VALUES,
    )
)
def test_whatever_a_file_without_images_holds_is_an_error(tmp_path_factory, content):
    import sfda_edge.data.toml_set as toml_set

    path = tmp_path_factory.mktemp("toml") / "mine.toml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toml_set, "read_toml", lambda _path: content)
        with pytest.raises(DataError, match=r"mine\.toml"):
            toml_set.open_toml_set(path)
