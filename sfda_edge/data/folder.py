"""A folder of images, with a folder of label maps beside it or without."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from runtime.images import list_images, read_image, read_label_map
from runtime.labels import LabelSpace
from sfda_edge.data.images import ImageSet, Sample
from sfda_edge.errors import DataError


def open_folder(
    images_dir: Path, labels_dir: Path | None = None, label_space: LabelSpace | None = None
) -> ImageSet:
    """All images of a folder; each needs ``labels_dir/<same name>.png`` when labels are given.

    Raises:
        DataError: a folder is missing, holds no image, or a label map is missing.
    """
    for folder in (images_dir, labels_dir):
        if folder is not None and not folder.is_dir():
            raise DataError(f"{folder} is not a folder")
    paths = list_images(images_dir)
    if not paths:
        raise DataError(f"{images_dir} holds no images")
    if labels_dir is not None:
        _require_labels(paths, labels_dir)
    samples = (_sample(path, labels_dir) for path in paths)
    return ImageSet(str(images_dir), tuple(samples), label_space)


def _require_labels(paths: list[Path], labels_dir: Path) -> None:
    missing = [path.stem for path in paths if not (labels_dir / f"{path.stem}.png").is_file()]
    if missing:
        raise DataError(
            f"{labels_dir}: no label map for {len(missing)} of {len(paths)} images, "
            f"first {missing[0]}.png"
        )


def _sample(path: Path, labels_dir: Path | None) -> Sample:
    label = partial(read_label_map, labels_dir / f"{path.stem}.png") if labels_dir else None
    return Sample(path.name, partial(read_image, path), label)
