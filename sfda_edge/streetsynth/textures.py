"""Surfaces of street scenes as RGB(A) arrays, and their upload to the graphics card."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike
from panda3d.core import SamplerState, Texture

FACADE_COLOURS = np.array(
    [[150, 110, 90], [180, 165, 140], [125, 125, 122], [205, 198, 186], [112, 68, 54],
     [168, 150, 112], [140, 84, 64], [190, 178, 160]], float,
)  # fmt: skip


def fractal_noise(random: np.random.Generator, size: int, octaves: int = 5) -> np.ndarray:
    """Cloudy noise (size, size) in [0, 1]: smooth random grids, each finer and weaker."""
    total: np.ndarray = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        cells = 2 ** (octave + 1)
        grid = random.random((cells, cells), np.float32)
        smooth = cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
        total = total + smooth / np.float32(1.6**octave)
    total -= total.min()
    return total / total.max()


def surface(
    random: np.random.Generator, colour: ArrayLike, contrast: float, grain: float = 0.15
) -> np.ndarray:
    """A rough surface (128, 128, 3) of about one colour: asphalt, paving, grass, bark."""
    rough = fractal_noise(random, 128)[..., None] - 0.5
    return (
        np.asarray(colour, float)
        + contrast * rough
        + random.normal(size=(128, 128, 1)) * contrast * grain
    )


def paving(random: np.random.Generator, colour: ArrayLike) -> np.ndarray:
    """Paving slabs (128, 128, 3): a surface with joints."""
    slabs = surface(random, colour, 28)
    slabs *= np.repeat(np.repeat(random.uniform(0.93, 1.05, (4, 4, 1)), 32, 0), 32, 1)
    slabs[::32] *= 0.72
    slabs[:, ::32] *= 0.72
    return slabs


def foliage(random: np.random.Generator, colour: ArrayLike) -> np.ndarray:
    """Leaves (128, 128, 4): mottled, with small gaps so that crowns get ragged edges."""
    leaves = surface(random, colour, 55, grain=0.5)
    clumps = cv2.GaussianBlur(random.random((128, 128), np.float32), (0, 0), 1.4)
    leaves *= (0.55 + 0.9 * (clumps - clumps.min()) / np.ptp(clumps))[..., None]
    opaque = np.where(clumps < np.quantile(clumps, 0.13), 0.0, 255.0)
    return np.dstack([leaves, opaque])


def railing(colour: ArrayLike) -> np.ndarray:
    """Upright bars between two rails (64, 64, 4), see-through between."""
    bars = np.zeros((64, 64, 4))
    bars[..., :3] = np.asarray(colour, float)
    bars[:, np.arange(64) % 8 < 2, 3] = 255
    bars[4:8, :, 3] = bars[54:58, :, 3] = 255
    return bars


def planks(random: np.random.Generator, colour: ArrayLike) -> np.ndarray:
    """A board fence (128, 128, 3)."""
    boards = surface(random, colour, 30)
    boards *= np.repeat(random.uniform(0.8, 1.1, (1, 8, 1)), 16, axis=1)
    boards[:, ::16] *= 0.5
    return boards


@dataclass(frozen=True, eq=False)
class Facade:
    """A wall of windows: one texture tile holds 4 bays x 4 floors.

    Attributes:
        image: (256, 256, 3), row 0 at the top.
        windows: the window inside its 1 x 1 bay, as (y0, y1, z0, z1) with z upward.
    """

    image: np.ndarray
    windows: tuple[float, float, float, float]


def facade(random: np.random.Generator) -> Facade:
    """A wall with brick courses, framed windows, and glass that differs from window to window."""
    colour = FACADE_COLOURS[random.integers(len(FACADE_COLOURS))] + random.normal(size=3) * 10
    wall = colour + (fractal_noise(random, 256, 6)[..., None] - 0.5) * 40
    if random.random() < 0.6:
        wall[::4] *= 0.9
    width, height = random.integers(24, 44), random.integers(30, 50)
    left, top = (64 - width) // 2, (64 - height) // 2
    frame, glass = (
        colour * random.uniform(0.65, 1.3),
        np.array([58, 68, 84]) * random.uniform(0.5, 1.5),
    )
    for row in range(0, 256, 64):
        for column in range(0, 256, 64):
            y, x = row + top, column + left
            wall[y - 3 : y + height + 4, x - 3 : x + width + 3] = frame
            pane = wall[y : y + height, x : x + width]
            pane[:] = glass * random.uniform(0.6, 1.5) + np.linspace(25, -15, height)[:, None, None]
            if random.random() < 0.4:
                pane[: int(height * random.uniform(0.2, 0.8))] = random.uniform(120, 215)
            pane[:, width // 2 - 1 : width // 2 + 1] = frame
    bottom = 1 - (top + height) / 64
    return Facade(wall, (left / 64, (left + width) / 64, bottom, bottom + height / 64))


def shop_front(random: np.random.Generator) -> np.ndarray:
    """A ground floor with show windows and a sign board (128, 256, 3)."""
    board = np.asarray(random.uniform(20, 200, 3))
    front = np.ones((128, 256, 3)) * board * 0.7
    front[8:30] = board
    for left in (10, 96, 182):
        front[40:112, left : left + 66] = np.array([50, 55, 62]) * random.uniform(0.5, 1.6)
        front[70:112, left : left + 66] += random.uniform(0, 90, 3) * random.random((42, 66, 1))
    return front


def upload(image: np.ndarray) -> Texture:
    """Make a repeating, mip-mapped texture from an (H, W, 3 or 4) array in [0, 255]."""
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    height, width, channels = pixels.shape
    texture = Texture()
    layout = Texture.FRgba if channels == 4 else Texture.FRgb
    texture.setup2dTexture(width, height, Texture.TUnsignedByte, layout)
    order = [2, 1, 0, 3][:channels]  # panda3d keeps blue first and the bottom row first
    texture.setRamImage(np.ascontiguousarray(pixels[::-1, :, order]).tobytes())
    texture.setMinfilter(SamplerState.FTLinearMipmapLinear)
    texture.setAnisotropicDegree(4)
    return texture
