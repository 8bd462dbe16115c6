"""Sets of images, with labels or without.

``open_images`` understands what people type: a folder, a video file, ``name:where`` for a data set
whose layout we know, or a TOML file that describes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runtime.sources.video_file import VIDEO_SUFFIXES
from sfda_edge.data.datasets import DATASETS
from sfda_edge.data.datasets.opening import open_dataset
from sfda_edge.data.folder import open_folder
from sfda_edge.data.images import ImageSet, images_in_memory
from sfda_edge.data.streetsynth import PARTS, open_streetsynth
from sfda_edge.data.toml_set import open_toml_set
from sfda_edge.data.video import open_video
from sfda_edge.errors import DataError

__all__ = ["DATASETS", "ImageSet", "ImageSource", "open_images", "recorded_spec"]

# What images are named by: text as users type it, a path, or images in memory.
ImageSource = str | Path | ImageSet | Sequence[np.ndarray]

_STREETSYNTH = "streetsynth"


def open_images(source: ImageSource, labels_dir: Path | None = None) -> ImageSet:
    """Open a folder of images, a video or TOML file, a data set as ``NAME:WHERE``, or arrays.

    Args:
        source: what to open; a folder with ``/**`` behind it is read with its subfolders; arrays
            are (H, W, 3) uint8 RGB.
        labels_dir: a folder of index images with the images' names; for a plain folder or a video.

    Raises:
        DataError: there is nothing there, or labels are missing.
    """
    if not isinstance(source, str | Path):
        if labels_dir is not None:
            raise DataError(
                "a folder of label maps is for plain folders and videos, not for arrays"
            )
        return source if isinstance(source, ImageSet) else images_in_memory(source)
    spec = str(source)
    name, colon, where = spec.partition(":")
    path = Path(spec)
    knows_its_labels = _is_named(name, colon) or path.suffix.lower() == ".toml"
    if knows_its_labels and labels_dir is not None:
        raise DataError(
            f"{name} finds its own label maps; a folder of them is for plain folders and videos"
        )
    if _is_named(name, colon):
        if name == _STREETSYNTH:
            return open_streetsynth(where)
        return open_dataset(DATASETS[name], where)
    if path.suffix.lower() == ".toml":
        return open_toml_set(path)
    if path.is_dir() or path.name == "**":
        return open_folder(path, labels_dir)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return open_video(path, labels_dir)
    wanted = (
        f"a folder, a video file ({', '.join(VIDEO_SUFFIXES)}), a .toml file, {_STREETSYNTH}:… or "
        f"NAME:FOLDER/SPLIT of a data set ({', '.join(DATASETS)})"
    )
    if not path.exists():
        raise DataError(f"'{spec}' does not exist; give {wanted}")
    raise DataError(f"'{spec}' is not {wanted}")


def _is_named(name: str, colon: str) -> bool:
    return bool(colon) and (name == _STREETSYNTH or name in DATASETS)


def recorded_spec(source: ImageSource) -> str:
    """How a record names images: so that it holds in any working directory."""
    if isinstance(source, ImageSet):
        return source.title
    if not isinstance(source, str | Path):
        return images_in_memory(source).title
    spec = str(source)
    name, colon, where = spec.partition(":")
    if spec in {f"streetsynth:{part}" for part in PARTS}:
        return spec
    if colon and name in DATASETS:
        return f"{name}:{Path(where).absolute()}"
    prefix, where = (f"{name}:", where) if _is_named(name, colon) else ("", spec)
    path = Path(where)
    if (
        path.suffix.lower() == ".toml"
    ):  # it describes what lies beside it, not beside what it links to
        return str(path.absolute())
    known = path.exists() or path.name == "**"
    return prefix + (str(path.resolve()) if known else where)
