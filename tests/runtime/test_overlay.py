import numpy as np

from runtime.overlay import Overlay, side_by_side


def test_colours_are_the_palettes(three_classes):
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    coloured = Overlay(three_classes).colours(labels)
    np.testing.assert_array_equal(coloured, three_classes.colour_table()[labels])


def test_opacity_blends_image_and_colour(three_classes):
    image, labels = np.full((40, 60, 3), 100, np.uint8), np.full((20, 30), 2, np.uint8)
    blended = Overlay(three_classes, opacity=0.5, legend=False).draw(image, labels)
    np.testing.assert_allclose(blended[0, 0], (np.array([255, 0, 0]) + 100) / 2, atol=1)
    assert (image == 100).all(), "the camera's image must stay as it is"


def test_the_legend_shows_the_classes_that_are_there(three_classes):
    image, labels = np.zeros((200, 300, 3), np.uint8), np.zeros((20, 30), np.uint8)
    one = Overlay(three_classes).draw(image, labels)
    labels[0, 0] = 2
    two = Overlay(three_classes).draw(image, labels)
    plain = Overlay(three_classes, legend=False).draw(image, labels)
    assert (one[40:60, :60] == plain[40:60, :60]).all()
    assert (two[30:45, :60] != plain[30:45, :60]).any()


def test_a_legend_larger_than_the_picture_is_cut(three_classes):
    image, labels = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    assert Overlay(three_classes).draw(image, labels).shape == (8, 8, 3)


def test_side_by_side_keeps_proportions():
    row = side_by_side([np.zeros((10, 20, 3), np.uint8), np.zeros((20, 20, 3), np.uint8)], 40)
    assert row.shape == (40, 80 + 4 + 40, 3)
