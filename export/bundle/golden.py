"""Choose and write the golden frame, which every backend answers before it is used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from export.bundle.directory import GOLDEN_IMAGE_FILE, GOLDEN_LABELS_FILE
from export.gate.scores import LabelMap
from runtime.bundle.manifest import GoldenFacts
from runtime.images import resize_image


def write_golden(
    folder: Path,
    images: Sequence[np.ndarray],
    *,
    label_map: LabelMap,
    min_agreement: float,
) -> GoldenFacts:
    """Write the frame with the most classes and the labels that the finished graph gives for it.

    Args:
        folder: of the bundle.
        images: to choose from, each (H, W, 3) uint8 at the input size.
        label_map: runs the graph.
        min_agreement: what a backend has to reach.
    """
    maps = [label_map(image) for image in images]
    best = max(range(len(maps)), key=lambda index: len(np.unique(maps[index])))
    Image.fromarray(images[best]).save(folder / GOLDEN_IMAGE_FILE)
    Image.fromarray(maps[best]).save(folder / GOLDEN_LABELS_FILE)
    return GoldenFacts(GOLDEN_IMAGE_FILE, GOLDEN_LABELS_FILE, min_agreement)


def drawn_frame(size_hw: tuple[int, int]) -> np.ndarray:
    """A frame of coloured clouds, for bundles that may show no target image: (H, W, 3) uint8."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (6, 12, 3)).astype(np.uint8)
    clouds = resize_image(coarse, size_hw).astype(int) + random.integers(-12, 13, (*size_hw, 3))
    return clouds.clip(0, 255).astype(np.uint8)
