"""A folder of images, with a folder of label maps beside it or without."""

from __future__ import annotations

import logging
from collections import Counter
from functools import partial
from pathlib import Path

from runtime.bundle.labels import LabelSpace
from runtime.images import (
    IMAGE_SUFFIXES,
    ImageError,
    list_images,
    read_image,
    read_label_map,
)
from sfda_edge.data.images import ImageSet, Sample
from sfda_edge.errors import DataError

logger = logging.getLogger(__name__)
_DEEP = "**"
_MOST_NAMED = 5


def open_folder(
    images_dir: Path, labels_dir: Path | None = None, label_space: LabelSpace | None = None
) -> ImageSet:
    """All images of a folder; each needs ``labels_dir/<same name>.png`` when labels are given.

    Of a folder and a last part ``**`` those of its subfolders, too, with labels in the same ones.

    Raises:
        DataError: a folder is missing or cannot be read, holds no image, or a label map is missing.
    """
    deep = images_dir.name == _DEEP
    images_dir = images_dir.parent if deep else images_dir
    for folder in (images_dir, labels_dir):
        if folder is not None and not folder.is_dir():
            found = "is not a folder" if folder.exists() else "does not exist"
            raise DataError(f"{folder} {found}")
    paths = _listed(images_dir, deep)
    if labels_dir is not None:
        labels_dir = _named_alike(labels_dir, images_dir)
        paths = _without_label_maps(images_dir, paths, labels_dir)
    if not paths:
        advice = "" if deep else _below(images_dir)
        endings = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(f"{images_dir} holds no images ({endings}){advice}")
    if labels_dir is not None:
        _require_labels(images_dir, paths, labels_dir)
    samples = (_sample(images_dir, path, labels_dir) for path in paths)
    return ImageSet(str(images_dir), tuple(samples), label_space)


def _below(folder: Path) -> str:
    """What its subfolders hold, as far as they can be read: for advice.

    They are named, since one of them may hold label maps, which are images, too.
    """
    try:
        found = Counter(
            path.relative_to(folder).parts[0] for path in list_images(folder, deep=True)
        )
    except ImageError:
        return ""
    if not found:
        return ""
    listed = ", ".join(f"{name} ({count})" for name, count in found.most_common(_MOST_NAMED))
    more = ", …" if len(found) > _MOST_NAMED else ""
    return f"; its subfolders do: {listed}{more}. {folder}/{_DEEP} takes them all"


def _listed(folder: Path, deep: bool) -> list[Path]:
    try:
        return list_images(folder, deep=deep)
    except ImageError as error:
        raise DataError(str(error)) from None


def _label_path(images_dir: Path, path: Path, labels_dir: Path) -> Path:
    return labels_dir / path.relative_to(images_dir).with_suffix(".png")


def _named_alike(labels_dir: Path, images_dir: Path) -> Path:
    """A folder in the images' own as a path below theirs, so that paths can be compared."""
    real, images = labels_dir.resolve(), images_dir.resolve()
    return images_dir / real.relative_to(images) if real.is_relative_to(images) else labels_dir


def _without_label_maps(images_dir: Path, paths: list[Path], labels_dir: Path) -> list[Path]:
    """The images without those that are other images' label maps.

    Raises:
        DataError: an image would be its own label map, or two images have the same one.
    """
    maps = {path: _label_path(images_dir, path, labels_dir) for path in paths}
    of_others = {label for path, label in maps.items() if label != path}
    kept = [path for path in paths if path not in of_others]
    owners: dict[Path, Path] = {}
    for path in kept:
        label = maps[path]
        if label == path:
            raise DataError(f"{path} would be its own label map: label maps need another folder")
        if label in owners:
            raise DataError(
                f"{owners[label].name} and {path.name} have the same label map, {label}"
            )
        owners[label] = path
    if left := len(paths) - len(kept):
        logger.info("%s: %d of %d files are label maps", images_dir, left, len(paths))
    return kept


def _require_labels(images_dir: Path, paths: list[Path], labels_dir: Path) -> None:
    expected = (_label_path(images_dir, path, labels_dir) for path in paths)
    missing = [path for path in expected if not path.is_file()]
    if missing:
        raise DataError(
            f"{labels_dir}: no label map for {len(missing)} of {len(paths)} images, "
            f"first {missing[0].relative_to(labels_dir)}"
        )


def _sample(images_dir: Path, path: Path, labels_dir: Path | None) -> Sample:
    label = None
    if labels_dir is not None:
        label = partial(read_label_map, _label_path(images_dir, path, labels_dir))
    return Sample(path.relative_to(images_dir).as_posix(), partial(read_image, path), label)
