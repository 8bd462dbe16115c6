import pytest

from runtime.bundle.labels import LabelSpace

BLACK = (0, 0, 0)


@pytest.mark.parametrize(
    ("names", "palette", "ignored", "message"),
    [
        (("a", "b"), (BLACK,), 255, "2 class names but 1 colours"),
        (("a",), (BLACK,), 255, "2 to 255 classes"),
        (("a", "a"), (BLACK, BLACK), 255, "must differ"),
        (("a", "b"), (BLACK, BLACK), 1, "also class 'b'"),
        (("a", "b"), (BLACK, BLACK), 300, "fit in a byte"),
    ],
)
def test_impossible_label_spaces_are_errors(names, palette, ignored, message):
    with pytest.raises(ValueError, match=message):
        LabelSpace(names, palette, ignored)


def test_colour_table_is_black_outside_the_classes(three_classes):
    table = three_classes.colour_table()
    assert table.shape == (256, 3)
    assert tuple(table[2]) == (255, 0, 0)
    assert not table[3:].any()
