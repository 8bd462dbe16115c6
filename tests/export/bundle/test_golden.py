"""The golden frame: which one is chosen, and what is written of it."""

import numpy as np
from PIL import Image

from export.bundle.golden import drawn_frame, write_golden


def test_the_frame_with_the_most_classes_is_written_with_its_labels(tmp_path):
    random = np.random.default_rng(0)
    images = [random.integers(0, n, (6, 8, 3)).astype(np.uint8) for n in (1, 4, 2)]

    def label_map(image):
        return image[..., 0]

    facts = write_golden(tmp_path, images, label_map=label_map, min_agreement=0.9)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / facts.image_file)), images[1])
    written = np.array(Image.open(tmp_path / facts.labels_file))
    np.testing.assert_array_equal(written, label_map(images[1]))
    assert facts.min_agreement == 0.9


def test_a_drawn_frame_is_the_same_each_time_and_has_contrast():
    frame = drawn_frame((48, 96))
    assert (frame.shape, frame.dtype) == ((48, 96, 3), np.uint8)
    np.testing.assert_array_equal(frame, drawn_frame((48, 96)))
    assert frame.std() > 30
