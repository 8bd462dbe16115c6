"""Dataset: what is known of a public data set, and where it keeps its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from runtime.bundle.labels import LabelSpace
from runtime.images import read_image
from sfda_edge.data.datasets.label_files import LabelReader
from sfda_edge.data.datasets.path_template import PathTemplate


@dataclass(frozen=True)
class Labels:
    """Label maps beside images.

    Attributes:
        file: where the label map of an image is, by the fields of the image's path.
        read: reads one as indices (H, W) uint8.
        exists: whether it is there; one that several files make up is no file itself.
        shown: where it is, for people; empty for ``file``.
    """

    file: str
    read: LabelReader
    exists: Callable[[Path], bool] = Path.exists
    shown: str = ""

    @cached_property
    def template(self) -> PathTemplate:
        """``file`` as a template."""
        return PathTemplate(self.file)


@dataclass(frozen=True)
class Layout:
    """Where the files of a split are.

    Attributes:
        images: their paths.
        labels: forms of label maps; of each image the first that is there is read.
    """

    images: str
    labels: tuple[Labels, ...] = ()

    @cached_property
    def template(self) -> PathTemplate:
        """``images`` as a template."""
        return PathTemplate(self.images)


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    Attributes:
        layouts: forms in which it is found; the first that fits is read.
        num_images: how many there are officially; None where nobody says.
        keep: which images belong to the split, by the fields of their paths; all by default.
        broken: images that are left out, by name, and why.
        read_image: reads one image; None for the data set's.
    """

    layouts: tuple[Layout, ...]
    num_images: int | None = None
    keep: Callable[[Mapping[str, str]], bool] = lambda _fields: True
    broken: Mapping[str, str] = field(default_factory=dict)
    read_image: Callable[[Path], np.ndarray] | None = None


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A public data set.

    Attributes:
        name: as in ``NAME:FOLDER/SPLIT``.
        title: for people.
        splits: its parts by name.
        label_space: what the labels are read as.
        size: of images and of the download, for people.
        licence: terms in a few words.
        address: where it is asked for.
        note: what else a user should know; empty for nothing.
        read_image: reads one image.
        resizes_labels: whether label maps of another size than the image are resized to it.
    """

    name: str
    title: str
    splits: Mapping[str, Split]
    label_space: LabelSpace
    size: str
    licence: str
    address: str
    note: str = ""
    read_image: Callable[[Path], np.ndarray] = read_image
    resizes_labels: bool = False
