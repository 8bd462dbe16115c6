import numpy as np
import pytest
import torch
from PIL import Image

from runtime.images import ImageError, read_image, read_label_map
from sfda_edge.data import open_images
from sfda_edge.data.images import ImageSet, Sample
from sfda_edge.data.labelled_images import LabelledImages
from sfda_edge.errors import DataError

SIZE_HW = (24, 40)


def test_batches_are_what_reading_everything_gives(labelled_folder, three_classes):
    found = open_images(labelled_folder / "images", labelled_folder / "labels")
    read = [
        [reader(labelled_folder / name / f"{index}.png") for index in range(6)]
        for name, reader in (("images", read_image), ("labels", read_label_map))
    ]
    pictures, labels = (torch.from_numpy(np.stack(some)) for some in read)
    digests = set()
    for memory_bytes in (None, 0, 2 * 4 * SIZE_HW[0] * SIZE_HW[1]):
        images = LabelledImages(found, three_classes, SIZE_HW, memory_bytes=memory_bytes)
        assert len(images) == len(pictures)
        chosen = [5, 0, 3, 0]
        batch = images.ahead(chosen).pair()
        assert torch.equal(batch[0], pictures[chosen].permute(0, 3, 1, 2))
        assert torch.equal(batch[1], labels[chosen])
        for pair, expected in zip(images, zip(pictures, labels, strict=True), strict=True):
            assert all(map(np.array_equal, pair, expected))
        digests.add(images.sha256)
    assert len(digests) == 1
    Image.fromarray(labels[2].numpy() * 0).save(labelled_folder / "labels" / "2.png")
    assert LabelledImages(found, three_classes, SIZE_HW).sha256 not in digests


def counting(counts, labels=1):
    def sample(index):
        def image():
            counts[index] = counts.get(index, 0) + 1
            return np.full((8, 8, 3), index, np.uint8)

        return Sample(f"{index}", image, lambda: np.full((8, 8), labels, np.uint8))

    return ImageSet("counted", tuple(sample(index) for index in range(4)))


def test_what_fits_in_memory_is_decoded_once(three_classes):
    counts: dict[int, int] = {}
    images = LabelledImages(counting(counts), three_classes, (8, 8), memory_bytes=2 * 4 * 64)
    for _ in range(3):
        images.ahead(range(4)).pair()
    assert counts == {0: 1, 1: 1, 2: 4, 3: 4}


def test_images_without_any_label_are_an_error(three_classes):
    with pytest.raises(DataError, match="counted: no pixel has a label that the model knows"):
        LabelledImages(counting({}, labels=255), three_classes, (8, 8))


def test_a_file_that_is_gone_during_training_is_named(three_classes):
    images = LabelledImages(counting({}), three_classes, (8, 8), memory_bytes=0)

    def gone():
        raise ImageError("0.png: No such file or directory")

    images._samples[0] = Sample("0.png", gone, gone)
    with pytest.raises(DataError, match=r"0.png could be read when the run began and cannot be"):
        images.ahead([0]).pair()
