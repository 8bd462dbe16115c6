import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from runtime.errors import SourceError
from runtime.images import (
    ImageError,
    list_images,
    read_image,
    read_label_map,
    resize_image,
    resize_label_map,
)
from runtime.sources.grammar import open_source


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def test_png_round_trip(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture)


def test_what_is_hidden_is_no_image(tmp_path, picture):
    """macOS leaves ._a.png, which is none, beside a.png on disks of others."""
    Image.fromarray(picture).save(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"Mac OS X")
    assert list_images(tmp_path) == [tmp_path / "a.png"]


def test_grey_and_transparent_images_become_rgb(tmp_path, picture):
    for mode in ("L", "RGBA", "P"):
        Image.fromarray(picture).convert(mode).save(tmp_path / "a.png")
        assert read_image(tmp_path / "a.png").shape == (48, 64, 3)


def test_a_turned_photograph_is_turned_upright(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: rotate by 90 degrees
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (64, 48, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_truncated_images_are_errors_that_name_the_file(tmp_path, picture, suffix, share):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(picture).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ImageError, match=f"a{suffix}"):
        read_image(path)


def test_label_maps_have_one_channel(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="one channel"):
        read_label_map(tmp_path / "a.png")


def test_palette_label_maps_give_their_index(tmp_path):
    labels = np.array([[0, 1], [2, 3]], np.uint8)
    image = Image.fromarray(labels)
    image.putpalette([200, 10, 10] * 256)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png"), labels)


def test_images_are_listed_by_name_and_other_files_left_alone(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.JPG", "b.png"]


def test_resizing_labels_takes_the_nearest_pixel():
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    doubled = resize_label_map(labels, (6, 8))
    np.testing.assert_array_equal(doubled, labels.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(resize_label_map(doubled, (3, 4)).shape, (3, 4))


def test_resizing_to_the_same_size_is_free(picture):
    assert resize_image(picture, (48, 64)) is picture


def test_images_of_more_than_8_bits_are_refused_not_spoilt(tmp_path):
    deep = np.linspace(0, 65535, 16, dtype=np.uint16).reshape(4, 4)
    Image.fromarray(deep).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="8 bits are read, this one is I"):
        read_image(tmp_path / "a.png")


def encoded(image_format, mode):
    content = io.BytesIO()
    Image.fromarray(np.arange(768, dtype=np.uint8).reshape(16, 16, 3)).convert(mode).save(
        content, image_format
    )
    return content.getvalue()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "BMP", "TIFF", "PPM", "WEBP", "GIF"])
@settings(max_examples=60)
@given(data=st.data())
def test_any_damage_gives_an_image_or_an_error_with_its_name(tmp_path_factory, image_format, data):
    content = bytearray(encoded(image_format, data.draw(st.sampled_from(["RGB", "L"]))))
    for _ in range(data.draw(st.integers(0, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(0, len(content)))])
    path = tmp_path_factory.getbasetemp() / "damaged.png"
    path.write_bytes(content)
    for read, dimensions in ((read_image, 3), (read_label_map, 2)):
        try:
            found = read(path)
        except ImageError as error:
            message = str(error)
        else:
            assert found.dtype == np.uint8
            assert found.ndim == dimensions
            continue
        assert "damaged.png" in message


@settings(max_examples=100)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_rejected(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "random.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"random\.jpg"):
        read_image(path)


NAMES = st.lists(
    st.sampled_from(["a.png", "b_left.PNG", ".hidden.png", "c.txt", "sub/d.jpg", ".x/e.png"]),
    unique=True,
)


@given(NAMES, st.sampled_from(["*", "*_left.*", "[ab]*", "nothing"]), st.booleans())
def test_images_are_listed_as_glob_would_without_what_is_hidden(
    tmp_path_factory, names, pattern, deep
):
    folder = tmp_path_factory.mktemp("listed")
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    shown = [name for name in names if "/." not in f"/{name}" and not name.endswith(".txt")]
    globbed = folder.rglob(pattern) if deep else folder.glob(pattern)
    expected = {folder / name for name in shown} & set(globbed)
    assert list_images(folder, pattern, deep=deep) == sorted(expected)


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=8, unique=True), st.booleans())
def test_numbered_images_are_in_the_order_of_their_numbers(tmp_path_factory, numbers, padded):
    folder = tmp_path_factory.mktemp("numbered")
    for number in numbers:
        (folder / f"cam2_{number:0{12 * padded}d}.png").touch()
    found = [int(path.stem.partition("_")[2]) for path in list_images(folder)]
    assert found == sorted(numbers)


@given(st.lists(st.text("01a_.", min_size=1, max_size=6), min_size=1, max_size=8, unique=True))
def test_any_names_have_one_order(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("named")
    for name in names:
        (folder / f"x{name}").mkdir()
        (folder / f"x{name}" / "0.png").touch()
        (folder / f"x{name}.png").touch()
    found = list_images(folder, deep=True)
    assert len(found) == len(set(found)) == 2 * len(names)
    assert list_images(folder, deep=True) == found


def test_linked_folders_are_listed_and_circles_end(tmp_path):
    for folder in ("deep/a", "elsewhere/b"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "0.png").touch()
    (tmp_path / "deep" / "b").symlink_to(tmp_path / "elsewhere" / "b")
    (tmp_path / "deep" / "a" / "round").symlink_to(tmp_path / "deep")
    deep = tmp_path / "deep"
    (tmp_path / "deep" / "latest").symlink_to("a")
    found = [path.relative_to(deep).as_posix() for path in list_images(deep, deep=True)]
    assert found == ["a/0.png", "b/0.png", "latest/0.png"]
    assert list_images(deep) == []


@pytest.mark.parametrize("value", [0.7, float("nan"), 300.0])
def test_probabilities_are_no_label_map(tmp_path, value):
    values = np.full((4, 6), 3, np.float32)
    Image.fromarray(values).save(tmp_path / "map.tif")
    assert (read_label_map(tmp_path / "map.tif") == 3).all()
    values[2, 2] = value
    Image.fromarray(values).save(tmp_path / "map.tif")
    with pytest.raises(ImageError, match="a label map has one channel with whole numbers"):
        read_label_map(tmp_path / "map.tif")


def test_a_folder_that_cannot_be_read_is_an_error_and_not_empty(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "0.png").touch()
    scandir = os.scandir

    def refusing(path):
        if Path(path).name == "closed":  # as for anybody but root
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refusing)
    assert list_images(tmp_path) == [tmp_path / "0.png"]
    with pytest.raises(ImageError, match=r"closed cannot be read: Permission denied"):
        list_images(tmp_path, deep=True)
    with pytest.raises(ImageError, match="closed cannot be read"):
        list_images(tmp_path / "closed")
    with pytest.raises(ImageError, match="nowhere cannot be read: No such file"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="closed cannot be read"):
        open_source(str(tmp_path / "closed"))
