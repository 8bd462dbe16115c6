"""What a method shows of itself: arrays with a title, which the report draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False, kw_only=True)
class Illustration:
    """Images with a title.

    Attributes:
        title, text: for people.
        images: (N, H, W, 3) uint8 RGB.
    """

    title: str
    text: str
    images: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelledImages(Illustration):
    """Images above what a network predicts for them.

    Attributes:
        label_maps: (N, H, W) uint8.
    """

    label_maps: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class HeatMaps(Illustration):
    """Images above a value for each cell of a grid.

    Attributes:
        values: (N, rows, columns) float.
        marked: row and column of the cell that the values refer to.
    """

    values: np.ndarray
    marked: tuple[int, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class PatchGrid(Illustration):
    """Images whose square patches are framed.

    Attributes:
        kinds: (N, K, K): 1 for green, 2 for red, 0 for no frame.
    """

    kinds: np.ndarray
