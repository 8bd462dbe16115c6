"""Stanford2D3D: pinhole images and panoramas of six floors (Armeni et al., 2017)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from runtime.bundle.labels import IGNORED
from runtime.files import read_text
from runtime.images import ImageError, read_image
from sfda_edge.data.datasets.dataset import Dataset, Labels, Layout, Split
from sfda_edge.data.datasets.label_files import by_base_256
from sfda_edge.labels.label_spaces import LABEL_SPACES

_SPACE = LABEL_SPACES["stanford2d3d"]
_NAMES, _ADDRESS = "assets/semantic_labels.json", "https://github.com/alexsax/2D-3D-Semantics"
# Fold 1, which results are reported on: areas 5a and 5b are scored.
_SCORED = ("5a", "5b")
# The rows of a panorama that are trained on (Trans4PASS's code); scored are whole ones.
_PANORAMA_HW, _SEEN = (2048, 4096), slice(320, 1728)


def _classes(label_file: Path) -> np.ndarray:
    """The class of each instance, by its number, from the data set's list of them.

    Raises:
        ImageError: the list is missing or has another form.
    """
    path = label_file.parents[3] / _NAMES  # of area_1/data/semantic/NAME.png
    try:
        return _instances(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        raise ImageError(
            f"{path} is missing: labels are numbers of that list, which is in {_ADDRESS}"
        ) from None


@lru_cache(maxsize=4)
def _instances(path: Path, _changed_ns: int) -> np.ndarray:
    try:
        names = json.loads(read_text(path))
        classes = [str(name).partition("_")[0] for name in names]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ImageError(f"{path}: {error}") from None
    known = {name: index for index, name in enumerate(_SPACE.names)}
    return np.array([known.get(name, IGNORED) for name in classes], np.uint8)


_by_list = by_base_256(_classes)


def _read_labels(path: Path) -> np.ndarray:
    """A label map; where its image is black, nothing was seen."""
    labels = _by_list(path)
    name = path.name.removesuffix("_semantic.png")
    image = read_image(path.parents[1] / "rgb" / f"{name}_rgb.png")
    if image.shape[:2] != labels.shape:
        raise ImageError(f"{path}: its size differs from that of its image")
    return np.where(image.any(axis=2), labels, np.uint8(IGNORED))


def _without_caps(pixels: np.ndarray) -> np.ndarray:
    """A panorama without the black caps at its top and bottom."""
    return pixels[_SEEN] if pixels.shape[:2] == _PANORAMA_HW else pixels


def _split(kind: str, num_images: int, *, scored: bool, cropped: bool = False) -> Split:
    def keep(fields: Mapping[str, str]) -> bool:
        return (fields["area"] in _SCORED) == scored

    read_labels, read = _read_labels, read_image
    if cropped:
        read_labels = lambda path: _without_caps(_read_labels(path))
        read = lambda path: _without_caps(read_image(path))
    layout = Layout(
        f"area_{{area}}/{kind}/rgb/{{frame}}_rgb.png",
        (Labels(f"area_{{area}}/{kind}/semantic/{{frame}}_semantic.png", read_labels),),
    )
    return Split((layout,), num_images, keep, read_image=read)


STANFORD2D3D = Dataset(
    name="stanford2d3d",
    title="Stanford2D3D",
    splits={
        "pinhole-train": _split("data", 70_496 - 17_593, scored=False),
        "pinhole-val": _split("data", 17_593, scored=True),
        "panorama-train": _split("pano", 1_040, scored=False, cropped=True),
        "panorama-val": _split("pano", 373, scored=True),
    },
    label_space=_SPACE,
    size="70,496 images of 1080x1080, 1,413 panoramas of 4096x2048, 110 GB without depth",
    licence="its own agreement; form",
    address=_ADDRESS,
    note="fold 1: areas 5a and 5b are val; panorama-train without its black caps, and black pixels "
    "are ignored; a model of stanford2d3d8 is scored on its 8 classes",
)
