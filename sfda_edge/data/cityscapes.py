"""Cityscapes as it is released: ``leftImg8bit/SPLIT/CITY``, and ``gtFine/SPLIT/CITY`` beside it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from runtime.images import ImageError, list_images, read_image, read_label_map
from sfda_edge.data.images import ImageSet, Sample
from sfda_edge.errors import DataError
from sfda_edge.labels.label_spaces import LABEL_SPACES

_IMAGE, _TRAIN_IDS, _IDS = "_leftImg8bit.png", "_gtFine_labelTrainIds.png", "_gtFine_labelIds.png"
# The official scripts' labelIds of the 19 classes that are scored, in the order of these.
_SCORED_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def open_cityscapes(where: str) -> ImageSet:
    """A split's images, such as ``cityscapes/leftImg8bit/val``; labelled when ``gtFine`` is there.

    Labels are ``labelTrainIds`` or, where the official scripts have not made these, ``labelIds``.

    Raises:
        DataError: there is no such folder, it cannot be read, or a label map is missing.
    """
    folder = Path(where).absolute()
    try:
        found = list_images(folder, f"*{_IMAGE}", deep=True) if folder.is_dir() else []
    except ImageError as error:
        raise DataError(f"cityscapes:{where}: {error}") from None
    paths = [path for path in found if path.parent.parent == folder]
    if folder.parent.name != "leftImg8bit" or not paths:
        raise DataError(
            f"cityscapes:{where}: expected CITY/*{_IMAGE} there; give a split's folder, such as "
            "cityscapes/leftImg8bit/val"
        )
    labels_dir = folder.parent.parent / "gtFine" / folder.name
    samples = (_sample(path, labels_dir if labels_dir.is_dir() else None) for path in paths)
    return ImageSet(f"cityscapes:{where}", tuple(samples), LABEL_SPACES["cityscapes"])


def _sample(path: Path, labels_dir: Path | None) -> Sample:
    name, image = f"{path.parent.name}/{path.name}", partial(read_image, path)
    if labels_dir is None:
        return Sample(name, image)
    stem = labels_dir / path.parent.name / path.name.removesuffix(_IMAGE)
    train_ids, ids = (stem.with_name(stem.name + suffix) for suffix in (_TRAIN_IDS, _IDS))
    if train_ids.is_file():
        return Sample(name, image, partial(read_label_map, train_ids))
    if not ids.is_file():
        raise DataError(f"{labels_dir}: no label map for {name}: neither *{_TRAIN_IDS} nor *{_IDS}")
    return Sample(name, image, partial(_from_ids, ids))


def _from_ids(path: Path) -> np.ndarray:
    """A map of labelIds (H, W) as indices of the 19 classes; everything else is ignored."""
    space = LABEL_SPACES["cityscapes"]
    table = np.full(256, space.ignore_index, np.uint8)
    table[list(_SCORED_IDS)] = np.arange(space.num_classes)
    return table[read_label_map(path)]
