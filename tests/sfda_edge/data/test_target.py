import hashlib

import numpy as np
import pytest
import torch
from conftest import drawn_images
from PIL import Image

from runtime.images import read_image, resize_image
from sfda_edge.data.images import ImageSet, Sample
from sfda_edge.data.target import TargetImages, is_empty
from sfda_edge.errors import DataError

SIZE_HW = (16, 24)


def expected(images, index, size_hw=SIZE_HW):
    return torch.from_numpy(resize_image(images.samples[index].image(), size_hw)).permute(2, 0, 1)


@pytest.mark.parametrize("memory_bytes", [0, 3 * 16 * 24 * 2, 1 << 20])
def test_images_are_the_same_from_memory_and_from_disk(memory_bytes):
    images = drawn_images(5)
    target = TargetImages(images, SIZE_HW, memory_bytes=memory_bytes)
    found = target.images([4, 0, 3])
    assert found.dtype == torch.uint8
    for row, index in zip(found, [4, 0, 3], strict=True):
        assert torch.equal(row, expected(images, index))


def test_what_fits_in_memory_is_read_once():
    reads = []
    source = drawn_images(4)

    def reader(sample):
        def read():
            reads.append(sample.name)
            return sample.image()

        return read

    samples = tuple(Sample(sample.name, reader(sample)) for sample in source.samples)
    target = TargetImages(ImageSet("counted", samples), SIZE_HW, memory_bytes=3 * 16 * 24 * 3)
    assert sorted(reads) == ["000", "001", "002", "003"]
    target.images([0, 1, 2, 3])
    assert reads[4:] == ["003"]


def test_another_size_is_read_from_the_image_itself():
    images = drawn_images(2)
    target = TargetImages(images, SIZE_HW)
    assert torch.equal(target.images([1], (32, 48))[0], expected(images, 1, (32, 48)))


def test_the_digest_is_of_all_images_at_the_input_size():
    images = drawn_images(3)
    stacked = torch.stack([expected(images, index) for index in range(3)])
    each = [hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest() for image in stacked]
    target = TargetImages(images, SIZE_HW, memory_bytes=0)
    assert target.sha256 == hashlib.sha256("".join(each).encode()).hexdigest()
    names = [sample.name for sample in images.samples]
    lines = [f"{digest}  {name}" for digest, name in zip(each, names, strict=True)]
    assert target.hashes_text().splitlines() == lines
    older = hashlib.sha256(stacked.contiguous().numpy().tobytes()).hexdigest()
    assert target.matches(target.sha256)
    assert target.matches(older)
    assert not target.matches(each[0])


def test_a_spread_is_even_and_never_larger_than_the_set():
    target = TargetImages(drawn_images(7), SIZE_HW)
    assert target.spread(3) == [0, 3, 6]
    assert target.spread(100) == list(range(7))


def test_a_damaged_image_is_found_before_anything_else():
    def damaged():
        raise DataError("frame 2 is cut off")

    good = drawn_images(2).samples
    images = ImageSet("mixed", (*good, Sample("bad", damaged)))
    with pytest.raises(DataError, match="frame 2 is cut off"):
        TargetImages(images, SIZE_HW)
    assert len(TargetImages(images, SIZE_HW, skip_bad=True)) == 2


def test_an_image_that_is_gone_later_is_named(tmp_path):
    path = tmp_path / "street.png"
    Image.fromarray(np.eye(16, 24, dtype=np.uint8)[..., None].repeat(3, 2) * 255).save(path)
    other = Sample("other", lambda: read_image(path)[::-1])
    images = ImageSet("on disk", (other, Sample("street", lambda: read_image(path))))
    target = TargetImages(images, SIZE_HW, memory_bytes=0)
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(DataError, match=r"street could be read .* --resume"):
        target.images([1])


def resized(sample):
    return resize_image(sample.image(), SIZE_HW)


def one_colour(value, noise=0.0):
    rng = np.random.default_rng(0)
    image = np.full((200, 300, 3), value) + rng.normal(0, noise, (200, 300, 3))
    return Sample(f"of {value}", lambda: image.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("value", [0, 255, 127, (10, 10, 120)])
def test_images_that_show_a_single_colour_are_left_out_and_named(value, caplog):
    good = drawn_images(3).samples
    images = ImageSet("mixed", (one_colour(value), *good, one_colour(value, noise=1)))
    target = TargetImages(images, SIZE_HW)
    assert len(target) == 3
    assert np.array_equal(target.images([0])[0].permute(1, 2, 0), resized(good[0]))
    assert "2 of 5 images show a single colour and are left out: of" in caplog.text
    assert target.sha256 == TargetImages(ImageSet("good", good), SIZE_HW).sha256


def test_nothing_but_single_colours_or_the_same_image_is_an_error():
    with pytest.raises(DataError, match="all 2 images show a single colour"):
        TargetImages(ImageSet("black", (one_colour(0), one_colour(0, noise=2))), SIZE_HW)
    with pytest.raises(DataError, match="all 3 images are the same"):
        TargetImages(ImageSet("stuck", drawn_images(1).samples * 3), SIZE_HW)


def test_a_lamp_in_a_large_frame_at_night_is_something():
    frame = np.zeros((480, 854, 3), np.uint8)
    frame[100:103, 200:203] = 200
    assert frame.std() < 2
    assert not is_empty(frame)


def test_faint_scenes_are_no_single_colour():
    """Fog and night keep a few per cent of the light."""
    for sample in drawn_images(20).samples:
        assert not is_empty((0.08 * resized(sample) + 100).astype(np.uint8))
