"""python -m benchmarks.drawn: images that are drawn, with labels, by one camera and by another.

For what no street shows: people before a background (two classes), organs in a slice (three),
vessels in a retina (thin structures). Shapes are drawn by the same rules for both cameras; light,
contrast, noise and clutter differ.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from benchmarks.measuring.program import exit_code_of
from runtime.arguments import natural, positive
from runtime.output import print_result

SIZE = 160  # pixels of height and width
CLASSES = {
    "portraits": ("background", "person"),
    "organs": ("background", "liver", "kidney"),
    "vessels": ("background", "vessel"),
}
Drawing = tuple[np.ndarray, np.ndarray]  # (H, W, 3) float in [0, 1], and labels (H, W) uint8


@dataclass(frozen=True, kw_only=True)
class Camera:
    """How a scene is seen; each range is drawn from anew for each image.

    Attributes:
        clutter: shapes in the background.
        gain, gamma: of the light.
        tint: a factor for red, green and blue.
        contrast: of what the labels tell apart; 1 leaves it.
        blur_px: sigma of the defocus.
        noise: sigma, in [0, 1].
        shade: how much darker the corner opposite the lamp is.
    """

    clutter: tuple[int, int]
    gain: tuple[float, float]
    gamma: tuple[float, float]
    tint: tuple[float, float, float]
    contrast: tuple[float, float]
    blur_px: tuple[float, float]
    noise: tuple[float, float]
    shade: tuple[float, float]


CAMERAS = {
    "source": Camera(
        clutter=(2, 7),
        gain=(0.9, 1.1),
        gamma=(0.85, 1.15),
        tint=(1.0, 1.0, 1.0),
        contrast=(0.9, 1.1),
        blur_px=(0.3, 0.7),
        noise=(0.005, 0.02),
        shade=(0.0, 0.2),
    ),
    "target": Camera(
        clutter=(8, 16),
        gain=(0.5, 0.75),
        gamma=(1.1, 1.5),
        tint=(1.15, 0.95, 0.75),
        contrast=(0.6, 0.8),
        blur_px=(0.8, 1.2),
        noise=(0.03, 0.06),
        shade=(0.3, 0.6),
    ),
}


def draw(subject: str, camera: Camera, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) uint8 RGB of a subject of ``CLASSES``, and its labels (H, W) uint8."""
    rng = np.random.default_rng([seed, sorted(CLASSES).index(subject)])
    image, labels = _SUBJECTS[subject](rng, camera)
    look = np.random.default_rng([seed, 7])
    return _seen(image, camera, look), labels


def _seen(image: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """The scene through the camera."""
    mean = image.mean((0, 1))
    image = mean + rng.uniform(*camera.contrast) * (image - mean)
    light = rng.uniform(*camera.gain) * np.array(camera.tint) * rng.uniform(0.95, 1.05, 3)
    along = np.linspace(0, 1, SIZE)
    lamp = along[:, None] if rng.random() < 0.5 else along[None, :]
    shade = 1 - rng.uniform(*camera.shade) * lamp[..., None]
    image = (image.clip(0, 1) ** rng.uniform(*camera.gamma)) * light * shade
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(*camera.blur_px))
    image = image + rng.normal(0, rng.uniform(*camera.noise), image.shape)
    return (255 * image.clip(0, 1)).round().astype(np.uint8)


def _texture(rng: np.random.Generator, grain_px: float, strength: float) -> np.ndarray:
    """Smooth noise (H, W, 1) around 0."""
    noise = cv2.GaussianBlur(rng.normal(0, 1, (SIZE, SIZE)), (0, 0), grain_px)
    return strength * (noise / noise.std())[..., None]


def _mask(paint: Callable[[np.ndarray], object]) -> np.ndarray:
    """What is painted with 1 on a canvas of 0, (H, W) bool."""
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    paint(canvas)
    return canvas > 0


def _whole(pair: Any) -> tuple[int, int]:
    first, second = pair
    return round(first), round(second)


def _ellipse(centre: Any, axes: Any, angle: float = 0.0) -> np.ndarray:
    """Inside an ellipse, (H, W) bool; centre and half axes are pairs (x, y)."""
    place, size = _whole(centre), _whole(axes)
    return _mask(lambda canvas: cv2.ellipse(canvas, place, size, angle, 0, 360, 1, -1))


def _rectangle(first: Any, second: Any) -> np.ndarray:
    """Inside a rectangle between two corners, (H, W) bool."""
    corners = _whole(first), _whole(second)
    return _mask(lambda canvas: cv2.rectangle(canvas, *corners, 1, -1))


def _portrait(rng: np.random.Generator, camera: Camera) -> Drawing:
    image = np.tile(rng.uniform(0.35, 0.9, 3), (SIZE, SIZE, 1)) + _texture(rng, 12, 0.04)
    for _ in range(rng.integers(*camera.clutter)):
        place, extent = rng.uniform(0, SIZE, 2), rng.uniform(8, 40, 2)
        shape = _ellipse(place, extent, rng.uniform(0, 180))
        if rng.random() < 0.5:
            shape = _rectangle(place, place + extent)
        image[shape] = rng.uniform(0.1, 1, 3)
    x, y, size = rng.uniform(50, 110), rng.uniform(55, 75), rng.uniform(18, 28)
    shoulders = _ellipse((x, y + 3.3 * size), (2.1 * size, 2.2 * size))
    neck = _ellipse((x, y + 1.2 * size), (0.5 * size, size))
    hair = _ellipse((x, y - 0.35 * size), (1.1 * size, 1.2 * size))
    head = _ellipse((x, y), (0.85 * size, 1.15 * size))
    skin = rng.uniform(0.45, 0.95) * np.array([1.0, 0.78, 0.65])
    cloth = _texture(rng, rng.uniform(1, 4), 0.05) + rng.uniform(0.05, 0.9, 3)
    image[shoulders] = cloth[shoulders]
    image[hair] = rng.uniform(0.05, 0.4) * np.array([1.0, 0.8, 0.6])
    image[neck | head] = skin
    for side in (-1, 1):
        image[_ellipse((x + 0.35 * side * size, y - 0.1 * size), (3, 2))] = 0.1
    image[_ellipse((x, y + 0.55 * size), (0.3 * size, 2))] = skin * [0.9, 0.45, 0.45]
    return image + _texture(rng, 1, 0.01), (shoulders | neck | hair | head).astype(np.uint8)


def _organs(rng: np.random.Generator, camera: Camera) -> Drawing:
    image, labels = np.full((SIZE, SIZE), 0.03), np.zeros((SIZE, SIZE), np.uint8)
    turn = rng.uniform(-8, 8)
    image[_ellipse((80, 80), (rng.uniform(62, 74), rng.uniform(50, 60)), turn)] = 0.38
    image[_ellipse((80, 80), (rng.uniform(54, 60), rng.uniform(42, 48)), turn)] = 0.46
    for _ in range(rng.integers(*camera.clutter)):  # gut, which looks like many things
        place, size = rng.uniform([60, 50], [110, 100]), rng.uniform(3, 9, 2)
        image[_ellipse(place, size, rng.uniform(0, 180))] = rng.uniform(0.3, 0.6)
    liver = _ellipse(rng.uniform([48, 62], [58, 72]), rng.uniform(16, 25, 2), rng.uniform(0, 180))
    image[liver], labels[liver] = rng.uniform(0.58, 0.66), 1
    for side in (-1, 1):
        at = (80 + side * rng.uniform(24, 32), rng.uniform(96, 104))
        kidney = _ellipse(at, rng.uniform([6, 9], [8, 13]), 20 * side)
        image[kidney], labels[kidney] = rng.uniform(0.72, 0.82), 2
    image[_ellipse((80, 112), (9, 8))] = 0.95  # the spine
    return np.repeat(image[..., None], 3, 2) + _texture(rng, 1.5, 0.02), labels


def _vessels(rng: np.random.Generator, camera: Camera) -> Drawing:
    image = np.tile([0.75, 0.38, 0.2], (SIZE, SIZE, 1)) + _texture(rng, 10, 0.05)
    for _ in range(rng.integers(*camera.clutter)):  # spots that are no vessels
        spot = _ellipse(rng.uniform(10, 150, 2), rng.uniform(1, 4, 2))
        image[spot] = rng.uniform(0.6, 1.3) * image[spot]
    disc = rng.uniform([30, 60], [50, 100])
    tree = np.zeros((SIZE, SIZE), np.uint8)
    for angle in rng.uniform(-1.3, 1.3, 5):
        _grow(tree, rng, (disc, angle), rng.uniform(2.0, 3.5))
    vessel = tree > 0
    image[vessel] *= rng.uniform([0.62, 0.45, 0.5], [0.72, 0.6, 0.7])
    image[_ellipse(disc, (9, 10)) & ~vessel] = (0.95, 0.8, 0.5)
    field = _ellipse((80, 80), (76, 76))
    image[~field] = 0.02
    return image + _texture(rng, 1, 0.01), (vessel & field).astype(np.uint8)


def _grow(
    tree: np.ndarray, rng: np.random.Generator, start: tuple[np.ndarray, float], width_px: float
) -> None:
    """Draw a branch that winds, thins and forks, from a place and at an angle."""
    place, angle = start
    while width_px > 0.8 and (place > 0).all() and (place < SIZE).all():
        angle += rng.normal(0, 0.18)
        end = place + 5 * np.array([np.cos(angle), np.sin(angle)])
        cv2.line(tree, _whole(place), _whole(end), 1, max(1, round(width_px)))
        place, width_px = end, 0.97 * width_px
        if rng.random() < 0.12:
            side = rng.choice([-1, 1]) * rng.uniform(0.4, 0.9)
            _grow(tree, rng, (place, angle + side), 0.75 * width_px)


_SUBJECTS = {"portraits": _portrait, "organs": _organs, "vessels": _vessels}


def write_set(subject: str, camera: str, scenes: tuple[int, int], out_dir: Path) -> None:
    """Write ``images/*.png`` and ``labels/*.png`` of ``scenes``: the first, and how many."""
    first, count = scenes
    for part in ("images", "labels"):
        (out_dir / part).mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        image, labels = draw(subject, CAMERAS[camera], seed)
        Image.fromarray(image).save(out_dir / "images" / f"{seed:05d}.png")
        Image.fromarray(labels).save(out_dir / "labels" / f"{seed:05d}.png")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drawn", description=__doc__)
    parser.add_argument("subject", choices=sorted(CLASSES))
    parser.add_argument("--camera", choices=sorted(CAMERAS), default="source")
    parser.add_argument("--scenes", type=_scenes, default="0:40", metavar="FIRST:COUNT")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args(arguments)

    def run() -> None:
        write_set(args.subject, args.camera, args.scenes, args.out)
        count = args.scenes[1]
        print_result(f"drawn: {count} {args.subject}, {args.camera} camera, in {args.out}")

    return exit_code_of(run)


def _scenes(text: str) -> tuple[int, int]:
    first, _, count = text.partition(":")
    return natural(first), positive(count)


if __name__ == "__main__":
    sys.exit(main())
