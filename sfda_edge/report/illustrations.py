"""Draw the illustrations of a method: labelled images, heat maps, patches."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from runtime.bundle.labels import LabelSpace
from runtime.overlay import Overlay
from sfda_edge.methods.illustrations import HeatMaps, Illustration, LabelledImages, PatchGrid
from sfda_edge.report.heat import heat
from sfda_edge.report.page import Section, picture_url

_SHOWN = 4
_GAP_PX = 4
_GREEN, _RED = (46, 160, 67), (207, 34, 46)


def illustration_section(shown: Illustration, space: LabelSpace) -> Section:
    """A section of the page with the first images of an illustration.

    Args:
        shown: arrays with a title.
        space: what label maps mean.
    """
    rows = [shown.images[:_SHOWN]]
    if isinstance(shown, LabelledImages):
        overlay = Overlay(space, legend=False)
        pairs = zip(shown.images[:_SHOWN], shown.label_maps[:_SHOWN], strict=True)
        rows.append(np.stack([overlay.draw(image, labels) for image, labels in pairs]))
    elif isinstance(shown, HeatMaps):
        rows.append(np.stack([_heat(shown, index) for index in range(len(rows[0]))]))
    elif isinstance(shown, PatchGrid):
        framed = zip(shown.images[:_SHOWN], shown.kinds[:_SHOWN], strict=True)
        rows = [np.stack([_framed(image.copy(), kinds) for image, kinds in framed])]
    return Section(shown.title, shown.text, picture=picture_url(_grid(rows)))


def _grid(rows: Sequence[np.ndarray]) -> np.ndarray:
    gaps = ((0, _GAP_PX), (0, _GAP_PX), (0, 0))
    padded = [[np.pad(p, gaps, constant_values=255) for p in row] for row in rows]
    return np.vstack([np.hstack(row) for row in padded])


def _heat(shown: HeatMaps, index: int) -> np.ndarray:
    """An image's values as colours at its size, the marked cell white."""
    height, width = shown.images.shape[1:3]
    values = cv2.resize(shown.values[index], (width, height), interpolation=cv2.INTER_LINEAR)
    low, high = float(values.min()), float(values.max())
    picture = heat((values - low) / max(high - low, 1e-12))
    cell = _cell(picture, shown.values.shape[1:3], shown.marked)
    cell[:] = 255
    return picture


def _framed(picture: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Frames around the cells by their kind: 1 green, 2 red, 0 none."""
    for row, column in np.argwhere(kinds > 0):
        cell = _cell(picture, kinds.shape, (int(row), int(column)))
        colour = (_GREEN, _RED)[kinds[row, column] - 1]
        cell[:3], cell[-3:], cell[:, :3], cell[:, -3:] = colour, colour, colour, colour
    return picture


def _cell(picture: np.ndarray, cells_hw: Sequence[int], at: tuple[int, int]) -> np.ndarray:
    """The part of a picture that a cell of a grid covers, as a view."""
    (height, width), (row, column) = picture.shape[:2], at
    rows, columns = cells_hw
    top, bottom = row * height // rows, (row + 1) * height // rows
    left, right = column * width // columns, (column + 1) * width // columns
    return picture[top:bottom, left:right]
