"""Render sets of StreetSynth images with labels, and labelled clips."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from sfda_edge.errors import DataError
from sfda_edge.streetsynth.renderer import IMAGE_HW, the_renderer
from sfda_edge.streetsynth.styles import STYLES, Style

Progress = Callable[[Iterable[int]], Iterable[int]]
JPEG_QUALITY = 90


@dataclass(frozen=True)
class SceneRange:
    """Which scenes to draw: numbers ``first`` to ``first + count − 1``, ``frames`` of each."""

    first: int
    count: int
    frames: int = 1


def render_images(
    style: str | Style,
    scenes: SceneRange,
    out_dir: Path,
    labels: bool = True,
    progress: Progress = iter,
) -> int:
    """Write ``out_dir/images/*.jpg`` and ``out_dir/labels/*.png``; returns the number of frames.

    A scene number is a street: rendered in another style it has the same labels, pixel by pixel.

    Args:
        style: a name in ``STYLES``, or one of your own.
        scenes: which streets.
        out_dir: made where it is missing.
        labels: write labels, too.
        progress: wraps the scenes.

    Raises:
        DataError: the style is unknown, or no off-screen buffer can be opened.
    """
    look, renderer = style if isinstance(style, Style) else _style(style), the_renderer()
    _make_dirs(out_dir, ("images", "labels") if labels else ("images",))
    for seed in progress(range(scenes.first, scenes.first + scenes.count)):
        with renderer.open_scene(seed, look) as scene:
            for index in range(scenes.frames):
                image, label_map = scene.frame(index)
                name = f"{seed:05d}_{index:03d}"
                Image.fromarray(image).save(
                    out_dir / "images" / f"{name}.jpg", quality=JPEG_QUALITY
                )
                if labels:
                    _save_label(label_map, out_dir / "labels" / f"{name}.png")
    return scenes.count * scenes.frames


def render_clip(
    style: str, scenes: SceneRange, out_dir: Path, fps: float = 15.0, progress: Progress = iter
) -> int:
    """Write ``out_dir/clip.mp4`` (the scenes one after the other) and ``out_dir/labels/*.png``."""
    look, renderer = _style(style), the_renderer()
    _make_dirs(out_dir, ("labels",))
    height, width = IMAGE_HW
    codec = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(out_dir / "clip.mp4"), codec, fps, (width, height))
    if not writer.isOpened():
        raise DataError(f"cannot write {out_dir / 'clip.mp4'}")
    number = 0
    for seed in progress(range(scenes.first, scenes.first + scenes.count)):
        with renderer.open_scene(seed, look) as scene:
            for index in range(scenes.frames):
                image, label_map = scene.frame(index)
                writer.write(np.ascontiguousarray(image[..., ::-1]))
                _save_label(label_map, out_dir / "labels" / f"{number:05d}.png")
                number += 1
    writer.release()
    return number


def _style(name: str) -> Style:
    if name not in STYLES:
        raise DataError(f"unknown style '{name}'; there are: {', '.join(STYLES)}")
    return STYLES[name]


def _make_dirs(out_dir: Path, names: Iterable[str]) -> None:
    for name in names:
        (out_dir / name).mkdir(parents=True, exist_ok=True)


def _save_label(label_map: np.ndarray, path: Path) -> None:
    Image.fromarray(label_map).save(path, optimize=True)
