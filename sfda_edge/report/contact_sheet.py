"""Rows of pictures with a title over each column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from runtime.bundle.labels import LabelSpace
from runtime.overlay import side_by_side
from sfda_edge.runs.files import write_atomically

_HEADER_PX = 22
_GAP_PX = 4


def contact_sheet(
    rows: list[list[np.ndarray]], titles: list[str], space: LabelSpace, row_height: int = 200
) -> np.ndarray:
    """Stack rows of (H, W, 3) uint8 pictures between a line of titles and a legend.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one row")
    strips = [side_by_side(row, row_height) for row in rows]
    width = max(strip.shape[1] for strip in strips)
    first_widths = [round(p.shape[1] * row_height / p.shape[0]) for p in rows[0]]
    parts = [_header(titles, first_widths, width)]
    for strip in strips:
        parts.append(
            np.pad(strip, ((0, _GAP_PX), (0, width - strip.shape[1]), (0, 0)), constant_values=255)
        )
    return np.vstack([*parts, _legend(space, width)])


def _header(titles: list[str], widths: list[int], width: int) -> np.ndarray:
    strip = Image.new("RGB", (width, _HEADER_PX), "white")
    draw, left = ImageDraw.Draw(strip), 0
    for title, column in zip(titles, widths, strict=True):
        draw.text((left + 4, 3), title, fill="black", font=ImageFont.load_default(14))
        left += column + _GAP_PX
    return np.asarray(strip)


def _legend(space: LabelSpace, width: int) -> np.ndarray:
    """Colours and names of the classes, in as many lines as needed."""
    font = ImageFont.load_default(14)
    places, left, top = [], _GAP_PX, 0
    for name in space.names:
        wide = _HEADER_PX + int(font.getlength(name)) + 3 * _GAP_PX
        if left + wide > width and left > _GAP_PX:
            left, top = _GAP_PX, top + _HEADER_PX
        places.append((left, top))
        left += wide
    strip = Image.new("RGB", (width, top + _HEADER_PX), "white")
    draw = ImageDraw.Draw(strip)
    for (x, y), name, colour in zip(places, space.names, space.palette, strict=True):
        draw.rectangle((x, y + 4, x + 14, y + 18), fill=colour)
        draw.text((x + 20, y + 3), name, fill="black", font=font)
    return np.asarray(strip)


def save_picture(path: Path, picture: np.ndarray) -> None:
    """Write (H, W, 3) uint8 as JPEG or PNG, by the path's ending."""
    image = Image.fromarray(picture)
    kind = {".jpg": "JPEG", ".png": "PNG"}[path.suffix]
    write_atomically(path, lambda part: image.save(part, kind, quality=90))
