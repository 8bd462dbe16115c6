import numpy as np
from PIL import Image

from export.bundle.picture import draw_card


def test_each_row_shows_what_is_said_of_its_own_frame(tmp_path, three_classes):
    """Frames of one grey level each; what is said of them goes by that level."""
    frames = [np.full((20, 40, 3), level, np.uint8) for level in (0, 50, 100, 150, 200)]

    def by_level(frame):
        return np.full(frame.shape[:2], 2 if frame[0, 0, 0] > 150 else 0, np.uint8)

    draw_card(tmp_path / "card.jpg", frames, three_classes, {"this file": by_level})
    with Image.open(tmp_path / "card.jpg") as opened:
        picture = np.asarray(opened)
    top, height, width = 22, 174, 340
    levels = [int(picture[top + 80 + row * height, width // 2].mean()) for row in range(3)]
    np.testing.assert_allclose(levels, [0, 100, 200], atol=4)  # the first, the middle, the last
    said = [picture[top + 80 + row * height, width + 4 + width // 2] for row in range(3)]
    for row, (level, label) in enumerate(((0, 0), (100, 0), (200, 2))):
        expected = (np.array(three_classes.palette[label]) + level) / 2
        np.testing.assert_allclose(said[row], expected, atol=6)
