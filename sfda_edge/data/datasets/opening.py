"""Open a split of a data set in the layout in which it is released."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from runtime.images import IMAGE_SUFFIXES, ImageError, image_hw, resize_label_map
from sfda_edge.data.datasets.dataset import Dataset, Labels, Layout, Split
from sfda_edge.data.datasets.path_template import FoundPath
from sfda_edge.data.images import ImageSet, Reader, Sample
from sfda_edge.errors import DataError

logger = logging.getLogger(__name__)
# How far above a split's own folder, such as leftImg8bit/val, the data set may begin.
_MOST_LEVELS = 3


@dataclass(frozen=True)
class FoundSplit:
    """What of a split is there.

    Attributes:
        dataset, split_name: which.
        folder: where the data set begins.
        samples: the images, with labels where there are any.
        without_labels: names of images whose labels are missing, though others have some.
        left_out: names of images that are known to be broken.
        label_template: where labels were looked for; empty where the split has none.
    """

    dataset: Dataset
    split_name: str
    folder: Path
    samples: tuple[Sample, ...]
    without_labels: tuple[str, ...]
    left_out: tuple[str, ...]
    label_template: str

    @property
    def split(self) -> Split:
        """The split."""
        return self.dataset.splits[self.split_name]

    @property
    def num_labelled(self) -> int:
        """Images whose label map is there."""
        labelled = sum(sample.label_map is not None for sample in self.samples)
        return labelled - len(self.without_labels)


def open_dataset(dataset: Dataset, where: str) -> ImageSet:
    """A split's images, labelled where its labels are there.

    Args:
        dataset: which.
        where: ``FOLDER/SPLIT``, or ``FOLDER`` of a data set of one split. FOLDER is the one that
            the official download has, or one that layout begins with: ``leftImg8bit/val``.

    Raises:
        DataError: there is no such split, or nothing of it is there.
    """
    return as_image_set(find_split(dataset, where), f"{dataset.name}:{where}")


def as_image_set(found: FoundSplit, title: str) -> ImageSet:
    """What was found, as images to read; warnings say what is missing.

    A label map that is missing is an error when it is read: images that are only adapted to need
    none.
    """
    if found.without_labels:
        logger.warning("%s: %s", title, missing_labels_text(found))
    official, there = found.split.num_images, len(found.samples) + len(found.left_out)
    if official not in (None, there):
        logger.warning(
            "%s: %d of %d images are there; sfda-edge data check %s %s --split %s says more",
            *(title, there, official, found.dataset.name, found.folder, found.split_name),
        )
    return ImageSet(title, found.samples, found.dataset.label_space, found.label_template)


def missing_labels_text(found: FoundSplit) -> str:
    """Which labels are missing, for people."""
    return (
        f"no label map for {len(found.without_labels)} of {len(found.samples)} images, first "
        f"{found.without_labels[0]}; {found.label_template} was expected"
    )


def find_split(dataset: Dataset, where: str) -> FoundSplit:
    """What is there of a split; ``where`` as in ``open_dataset``.

    Raises:
        DataError: there is no such split, or nothing of it is there.
    """
    path = Path(where).absolute()
    places: list[tuple[str, Path]] = []
    if path.name in dataset.splits:
        places = [(path.name, path.parent), *_places_above(dataset, path)]
    if len(dataset.splits) == 1:
        places.append((next(iter(dataset.splits)), path))
    if not places:
        raise DataError(_no_split(dataset, where, path))
    for split_name, folder in places:
        if (found := split_in(dataset, split_name, folder)) is not None:
            return found
    split_name, folder = places[0]
    expected = " or ".join(layout.images for layout in dataset.splits[split_name].layouts)
    there = "" if folder.exists() else ", which does not exist"
    raise DataError(f"{dataset.name}:{where}: expected {expected} below {folder}{there}")


def _places_above(dataset: Dataset, path: Path) -> list[tuple[str, Path]]:
    """Where the data set begins if the path is the folder that a layout's images begin with."""
    starts = {layout.template.start() for layout in dataset.splits[path.name].layouts}
    above = path.parents[1:_MOST_LEVELS]
    return [(path.name, f) for f in above if path.relative_to(f).as_posix() in starts]


def _no_split(dataset: Dataset, where: str, path: Path) -> str:
    known = ", ".join(dataset.splits)
    there = "" if path.exists() else f", and {path} does not exist"
    return (
        f"{dataset.name}:{where} names no split{there}; give FOLDER/SPLIT with a split of {known}, "
        f"such as {dataset.name}:{where or 'FOLDER'}/{next(iter(dataset.splits))}"
    )


def split_in(dataset: Dataset, split_name: str, folder: Path) -> FoundSplit | None:
    """What is there of a split in the data set's folder; None for nothing."""
    split = dataset.splits[split_name]
    for layout in split.layouts:
        paths = [
            path
            for path in layout.template.find(folder)
            if Path(path.relative).suffix.lower() in IMAGE_SUFFIXES and split.keep(path.fields)
        ]
        if paths:
            return _found(dataset, split_name, folder, (layout, paths))
    return None


def _found(
    dataset: Dataset, split_name: str, folder: Path, there: tuple[Layout, list[FoundPath]]
) -> FoundSplit:
    layout, paths = there
    paths = _without_label_maps(layout, paths)
    broken = dataset.splits[split_name].broken
    left_out = [path for path in paths if Path(path.relative).stem in broken]
    kept = [path for path in paths if Path(path.relative).stem not in broken]
    _require_own_label_maps(folder, layout, kept)
    reader = dataset.splits[split_name].read_image or dataset.read_image
    reading = replace(dataset, read_image=reader)
    samples = tuple(_sample(reading, folder, layout, path) for path in kept)
    starts = (labels.template.start() for labels in layout.labels)
    labelled = any(start and (folder / start).is_dir() for start in starts)
    labelled = labelled or any(sample.label_map is not None for sample in samples)
    missing = [s.name for s in samples if labelled and s.label_map is None]
    expected = " or ".join(labels.shown or labels.file for labels in layout.labels)
    if missing:
        lost = partial(_no_label_map, expected)
        samples = tuple(
            replace(s, label_map=partial(lost, s.name)) if s.label_map is None else s
            for s in samples
        )
    return FoundSplit(
        dataset=dataset,
        split_name=split_name,
        folder=folder,
        samples=samples,
        without_labels=tuple(missing),
        left_out=tuple(_name(layout, path) for path in left_out),
        label_template=expected,
    )


def _without_label_maps(layout: Layout, paths: list[FoundPath]) -> list[FoundPath]:
    """What fits the images' template without what is a label map of another image."""
    maps = {labels.template.fill(path.fields) for labels in layout.labels for path in paths}
    maps = {_in_small_letters(file) for file in maps}
    return [path for path in paths if _in_small_letters(path.relative) not in maps]


def _require_own_label_maps(folder: Path, layout: Layout, paths: list[FoundPath]) -> None:
    """See that no two images have one label map.

    Raises:
        DataError: two have.
    """
    owners: dict[str, str] = {}
    for path in paths:
        for labels in layout.labels:
            if not labels.template.fields:
                continue  # one label map is meant for all
            file = labels.template.fill(path.fields)
            other = owners.setdefault(file, path.relative)
            if other != path.relative and _label_file(folder, labels, path) is not None:
                raise DataError(
                    f"{other} and {path.relative} have the same label map, {file}, below {folder}: "
                    "keep label maps in folders as the images are, or give images different names"
                )


def _sample(dataset: Dataset, folder: Path, layout: Layout, path: FoundPath) -> Sample:
    name, image = _name(layout, path), partial(dataset.read_image, folder / path.relative)
    for labels in layout.labels:
        if (file := _label_file(folder, labels, path)) is not None:
            label_map = partial(labels.read, file)
            if dataset.resizes_labels:
                label_map = partial(_resized, label_map, folder / path.relative)
            return Sample(name, image, label_map)
    return Sample(name, image)


def _label_file(folder: Path, labels: Labels, image: FoundPath) -> Path | None:
    """The label map of an image, whose ending may be in capitals, too; None where there is none."""
    file = folder / labels.template.fill(image.fields)
    endings = dict.fromkeys((file.suffix, file.suffix.lower(), file.suffix.upper()))
    return next((f for f in map(file.with_suffix, endings) if labels.exists(f)), None)


def _in_small_letters(file: str) -> str:
    """A path with its ending in small letters."""
    stem, dot, ending = file.rpartition(".")
    return stem + dot + ending.lower()


def _no_label_map(expected: str, name: str) -> np.ndarray:
    raise ImageError(f"{name} has no label map; {expected} was expected")


def _resized(label_map: Reader, image: Path) -> np.ndarray:
    """The label map in the size of its image."""
    return resize_label_map(label_map(), image_hw(image))


def _name(layout: Layout, path: FoundPath) -> str:
    """The image's path without the folders that all of the split share."""
    return path.relative.removeprefix(f"{layout.template.start()}/")
