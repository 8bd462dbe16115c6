"""Sets of images, with labels or without.

``open_images`` understands what people type: a folder, a video file, or ``name:where`` for a data
set whose layout we know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from runtime.sources.video_file import VIDEO_SUFFIXES
from sfda_edge.data.camvid import open_camvid
from sfda_edge.data.cityscapes import open_cityscapes
from sfda_edge.data.folder import open_folder
from sfda_edge.data.images import ImageSet, images_in_memory
from sfda_edge.data.streetsynth import PARTS, open_streetsynth
from sfda_edge.data.video import open_video
from sfda_edge.errors import DataError

__all__ = ["DATASETS", "ImageSet", "ImageSource", "open_images", "recorded_spec"]

# What images are named by: text as users type it, a path, or images in memory.
ImageSource = str | Path | ImageSet | Sequence[np.ndarray]

DATASETS: dict[str, Callable[[str], ImageSet]] = {
    "camvid": open_camvid,
    "cityscapes": open_cityscapes,
    "streetsynth": open_streetsynth,
}


def open_images(source: ImageSource, labels_dir: Path | None = None) -> ImageSet:
    """Open a folder of images, a video file, a data set as ``NAME:WHERE``, or arrays.

    Args:
        source: what to open; a folder with ``/**`` behind it is read with its subfolders; arrays
            are (H, W, 3) uint8 RGB.
        labels_dir: a folder of index images with the images' names; for a plain folder or a video.

    Raises:
        DataError: there is nothing there, or labels are missing.
    """
    if isinstance(source, ImageSet):
        return source
    if not isinstance(source, str | Path):
        return images_in_memory(source)
    spec = str(source)
    name, colon, where = spec.partition(":")
    if colon and name in DATASETS:
        if labels_dir is not None:
            raise DataError(
                f"{name} finds its own label maps; a folder of them is for plain folders and videos"
            )
        return DATASETS[name](where)
    path = Path(spec)
    if path.is_dir() or path.name == "**":
        return open_folder(path, labels_dir)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return open_video(path, labels_dir)
    known = ", ".join(f"{name}:…" for name in DATASETS)
    wanted = f"a folder, a video file ({', '.join(VIDEO_SUFFIXES)}) or {known}"
    if not path.exists():
        raise DataError(f"'{spec}' does not exist; give {wanted}")
    raise DataError(f"'{spec}' is not {wanted}")


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
    prefix, where = (f"{name}:", where) if colon and name in DATASETS else ("", spec)
    path = Path(where)
    known = path.exists() or path.name == "**"
    return prefix + (str(path.resolve()) if known else where)
