"""The golden frame: a picture and the labels that its bundle gave for it when it was exported.

Every backend answers it before its first frame of a stream, so that a wrong provider, precision or
driver shows as a figure and not as a worse picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.bundle.manifest import Manifest
from runtime.errors import ManifestError
from runtime.images import ImageError, read_image, read_label_map


@dataclass(frozen=True, eq=False)
class Golden:
    """What a backend is compared with.

    Attributes:
        image: (H, W, 3) uint8 RGB at the input size.
        label_map: (h, w) uint8.
        min_agreement: the least share of equal labels, in [0, 1].
    """

    image: np.ndarray
    label_map: np.ndarray
    min_agreement: float


def read_golden(bundle_dir: Path, manifest: Manifest) -> Golden | None:
    """The golden frame of a bundle; None of one that was exported without.

    Raises:
        ManifestError: its files are damaged or of another size.
    """
    facts = manifest.golden
    if facts is None:
        return None
    try:
        image = read_image(bundle_dir / facts.image_file)
        label_map = read_label_map(bundle_dir / facts.labels_file)
    except (ImageError, OSError) as error:
        raise ManifestError(f"{error}; export the bundle again") from None
    if image.shape[:2] != manifest.input_hw:
        raise ManifestError(
            f"{bundle_dir / facts.image_file} is {image.shape[1]}x{image.shape[0]}, the model's "
            "input is not; export the bundle again"
        )
    return Golden(image, label_map, facts.min_agreement)
