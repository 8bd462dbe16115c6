"""Camera effects on a rendered picture: sky, rain on the lens, exposure, noise."""

from __future__ import annotations

import cv2
import numpy as np

from sfda_edge.streetsynth.styles import Colour, Lens


def paint_sky(
    picture: np.ndarray, sky_mask: np.ndarray, colours: tuple[Colour, Colour], clouds: np.ndarray
) -> np.ndarray:
    """Fill the sky with a gradient and clouds.

    Args:
        picture: (H, W, 3) float in [0, 255].
        sky_mask: (H, W) bool.
        colours: at the top and at the horizon, in [0, 255].
        clouds: (h, w) cover in [0, 1], stretched over the picture.
    """
    height, width = picture.shape[:2]
    top, horizon = (np.asarray(c, np.float32) for c in colours)
    fall = np.minimum(np.linspace(0, 1.8, height, dtype=np.float32), 1)[:, None, None]
    sky = top * (1 - fall) + horizon * fall
    cover = cv2.resize(clouds.astype(np.float32), (width, height))[..., None]
    bright = np.minimum(0.45 * horizon + 0.55 * horizon.max(), 250)
    return np.where(sky_mask[..., None], sky * (1 - cover) + bright * cover, picture)


def photograph(picture: np.ndarray, lens: Lens, random: np.random.Generator) -> np.ndarray:
    """Take the picture: (H, W, 3) float in [0, 255] → uint8 of the same shape.

    No pixel moves by more than the colour fringe, so labels stay exact.
    """
    light = np.clip(picture, 0, 255).astype(np.float32) / 255
    if lens.bloom:
        glare = np.where(light.max(-1, keepdims=True) > 0.85, light, 0)
        light = light + lens.bloom * cv2.GaussianBlur(glare, (0, 0), 9)
    light = cv2.GaussianBlur(light, (0, 0), random.uniform(*lens.blur_px))
    if lens.colour_fringe_px:
        light = _fringe(light, lens.colour_fringe_px)
    if lens.rain:
        light = _rain(light, lens.rain, random)
    if lens.droplets:
        light = _droplets(light, lens.droplets, random)
    light = light * (1 - lens.veil) + 0.62 * lens.veil
    light = light * _vignette(light.shape[:2], lens.vignette)
    light = np.clip(light * random.uniform(*lens.gain) * np.asarray(lens.tint), 0, 1)
    light = light ** random.uniform(*lens.gamma)
    light = light * 255 + random.normal(size=light.shape) * random.uniform(*lens.noise)
    return np.clip(light, 0, 255).astype(np.uint8)


def _radius(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixel coordinates from the centre and their distance, 1 in the corners."""
    height, width = shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    return x, y, np.hypot(x, y) / np.hypot(height, width) * 2


def _vignette(shape: tuple[int, ...], lost: float) -> np.ndarray:
    return 1 - lost * _radius(shape)[2][..., None] ** 2


def _fringe(light: np.ndarray, shift_px: float) -> np.ndarray:
    """Lateral chromatic aberration: red a little larger, blue a little smaller than green."""
    x, y, _ = _radius(light.shape)
    centre_y, centre_x = (light.shape[0] - 1) / 2, (light.shape[1] - 1) / 2
    result = light.copy()
    for channel, direction in ((0, -1.0), (2, 1.0)):
        scale = np.float32(1 + direction * shift_px / np.hypot(centre_x, centre_y))
        result[..., channel] = cv2.remap(
            np.ascontiguousarray(light[..., channel]),
            x * scale + np.float32(centre_x),
            y * scale + np.float32(centre_y),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return result


def _rain(light: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Bright, slanted, half-transparent streaks."""
    seeds = (random.random(light.shape[:2]) < share / 12).astype(np.float32)
    streak = np.zeros((17, 17), np.float32)
    cv2.line(streak, (6, 0), (10, 16), 1.0, 1)
    streaks = cv2.GaussianBlur(cv2.filter2D(seeds, -1, streak), (0, 0), 0.6)
    return light + 0.22 * np.minimum(streaks, 1)[..., None]


def _droplets(light: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Drops on the front lens: round patches seen out of focus, brighter at their lower rim."""
    height, width = light.shape[:2]
    mask: np.ndarray = np.zeros((height, width), np.float32)
    for _ in range(random.poisson(count)):
        centre = (int(random.uniform(0, width)), int(random.uniform(0, height)))
        axes = (int(random.uniform(4, 13)), int(random.uniform(5, 16)))
        cv2.ellipse(mask, centre, axes, 0, 0, 360, 1.0, -1)
    mask = cv2.GaussianBlur(mask, (0, 0), 2)[..., None]
    soft = cv2.GaussianBlur(light, (0, 0), 6)
    return light * (1 - mask) + (soft * 1.06 + 0.02) * mask
