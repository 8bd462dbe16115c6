"""Colour a label map, blend it over the image, and say which colour is what."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from runtime.bundle.labels import LabelSpace
from runtime.frames import Segmentation
from runtime.images import resize_image, resize_label_map

_ROW_PX, _MARGIN_PX = 18, 6


class Overlay:
    """Draws overlays for one label space.

    Args:
        label_space: names and colours.
        opacity: of the colours over the image, in [0, 1].
        legend: list the classes that a picture shows.
        caption: a line at the bottom of a stream's pictures, such as what runs the model.
    """

    def __init__(
        self,
        label_space: LabelSpace,
        opacity: float = 0.5,
        legend: bool = True,
        caption: str = "",
    ) -> None:
        self.label_space, self.opacity, self.legend = label_space, opacity, legend
        self._caption = caption
        self._table = label_space.colour_table()[:, None]
        self._drawn: tuple[Segmentation, np.ndarray] | None = None

    def colours(self, label_map: np.ndarray) -> np.ndarray:
        """(H, W) uint8 → (H, W, 3) uint8 RGB."""
        import cv2

        # 720p takes 0.6 ms; cv2.LUT on three copies of the map takes 1.7, numpy's indexing more.
        return cv2.applyColorMap(label_map, self._table)

    def draw_result(self, result: Segmentation) -> np.ndarray:
        """A result's picture, not to be changed: several sinks share it. It names other states."""
        if self._drawn is not None and self._drawn[0] is result:
            return self._drawn[1]
        picture = self.draw(result.frame.image, result.label_map)
        if self._caption:
            _draw_text(picture, self._caption, (picture.shape[0] - _ROW_PX, 0), colour=(25, 25, 25))
        if result.state != "live":
            text = f"{result.state}, {result.frame.age_ms / 1000:.1f} s old"
            left = picture.shape[1] - _text_width(text)
            _draw_text(picture, text, (0, left), colour=(190, 20, 20))
        self._drawn = (result, picture)
        return picture

    def draw(self, image: np.ndarray, label_map: np.ndarray) -> np.ndarray:
        """Blend (h, w) labels over an (H, W, 3) uint8 RGB image; returns a new image."""
        import cv2

        coloured = self.colours(resize_label_map(label_map, image.shape[:2]))
        blended = cv2.addWeighted(image, 1 - self.opacity, coloured, self.opacity, 0)
        if self.legend:
            self._draw_legend(blended, label_map)
        return blended

    def _draw_legend(self, picture: np.ndarray, label_map: np.ndarray) -> None:
        present = np.flatnonzero(np.bincount(label_map.reshape(-1), minlength=256))
        shown = tuple(int(c) for c in present if c < self.label_space.num_classes)
        box = _legend_box(self.label_space, shown)
        height, width = (min(a, b) for a, b in zip(box.shape[:2], picture.shape[:2], strict=True))
        corner = picture[:height, :width]
        corner[:] = (corner * 0.35 + box[:height, :width] * 0.65).astype(np.uint8)


def _draw_text(
    picture: np.ndarray,
    text: str,
    corner: tuple[int, int],
    *,
    colour: tuple[int, int, int],
) -> None:
    """White on a colour; the corner is (top, left)."""
    import cv2

    top, left = max(0, corner[0]), max(0, corner[1])
    picture[top : top + _ROW_PX, left : left + _text_width(text)] = colour
    place = (left + _MARGIN_PX, top + _ROW_PX - 5)
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (240,) * 3, 1, cv2.LINE_AA)


def _text_width(text: str) -> int:
    import cv2

    width = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)[0][0]
    return round(1.12 * width) + 2 * _MARGIN_PX  # OpenCV 5 measures its text a little too short


@lru_cache(maxsize=64)
def _legend_box(space: LabelSpace, shown: tuple[int, ...]) -> np.ndarray:
    """A dark box (h, w, 3) uint8 with a swatch and a name a row."""
    import cv2

    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.42
    widths = [cv2.getTextSize(space.names[c], font, scale, 1)[0][0] for c in shown]
    # OpenCV 5 measures its text a little too short.
    width = _ROW_PX + 3 * _MARGIN_PX + round(1.12 * max(widths, default=0))
    box = np.full((_ROW_PX * len(shown) + 2 * _MARGIN_PX, width, 3), 25, np.uint8)
    for row, label in enumerate(shown):
        top = _MARGIN_PX + row * _ROW_PX
        swatch = box[top + 3 : top + _ROW_PX - 3, _MARGIN_PX : _MARGIN_PX + _ROW_PX - 4]
        swatch[:] = space.palette[label]
        place = (_ROW_PX + 2 * _MARGIN_PX, top + _ROW_PX - 5)
        cv2.putText(box, space.names[label], place, font, scale, (240, 240, 240), 1, cv2.LINE_AA)
    return box


def side_by_side(pictures: list[np.ndarray], height: int = 240) -> np.ndarray:
    """Pictures of equal height in a row, 4 pixels apart."""
    scaled = []
    for picture in pictures:
        width = round(picture.shape[1] * height / picture.shape[0])
        scaled.append(resize_image(picture, (height, width)))
        scaled.append(np.full((height, 4, 3), 255, np.uint8))
    return np.hstack(scaled[:-1])
