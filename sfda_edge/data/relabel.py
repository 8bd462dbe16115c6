"""Labels of a data set in the classes of a model, found by their names."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import numpy as np

from runtime.bundle.labels import LabelSpace
from sfda_edge.data.images import ImageSet, Reader, Sample, require_known
from sfda_edge.errors import DataError
from sfda_edge.labels.class_map import ClassMap, packaged_class_map
from sfda_edge.labels.label_spaces import label_space

logger = logging.getLogger(__name__)


def in_classes_of(images: ImageSet, space: LabelSpace) -> ImageSet:
    """The images with their labels in a model's classes, so that the model can be scored on them.

    Classes are joined where a class map ships for the two, such as Cityscapes' person and rider for
    the 13 classes of DensePASS. A class of the labels that the model does not have is ignored, and
    logged: so are Cityscapes' terrain, truck and train for the 16 classes of SYNTHIA. Labels of a
    plain folder are the model's classes by their numbers.

    Raises:
        DataError: there are no labels, or none of one of the model's classes.
    """
    if not images.labelled:
        advice = (
            "; --labels, --validation-labels or --source-validation-labels names a folder of "
            "label maps"
        )
        if images.label_space is not None:  # a data set that finds its own
            expected = images.label_template
            advice = f"; {expected} was expected" if expected else ""
        raise DataError(f"{images.title} has no labels{advice}")
    own = images.label_space
    if own is None or own == space:
        return images
    if (joined := packaged_class_map(own, space)) is not None:
        return _through(images, own, ClassMap(space, joined.groups))
    if missing := [name for name in space.names if name not in own.names]:
        raise DataError(
            f"the model predicts {space.num_classes} classes ({_some(space.names)}) and the labels "
            f"have {own.num_classes} ({_some(own.names)}), without {_some(missing)}; --map "
            "joins the model's classes into those of the labels"
        )
    groups = tuple((own.names.index(name),) for name in space.names)
    return _through(images, own, ClassMap(space, groups))


def with_label_classes(images: ImageSet, classes: str | LabelSpace) -> ImageSet:
    """The images with labels that mean what the caller says: a label space, its name, or a file.

    Raises:
        DataError: they are of a data set that says itself what its labels mean.
    """
    space = classes if isinstance(classes, LabelSpace) else label_space(classes)
    if images.label_space is not None and images.label_space.names != space.names:
        raise DataError(
            f"{images.title} knows what its labels mean ({_some(images.label_space.names)}); other "
            "classes are for a plain folder of label maps, or a video's"
        )
    return replace(images, label_space=space)


def _through(images: ImageSet, own: LabelSpace, joined: ClassMap) -> ImageSet:
    """The images with labels in the target's classes; those in no group are ignored."""
    space, kept = joined.target, {label for group in joined.groups for label in group}
    if lost := [name for label, name in enumerate(own.names) if label not in kept]:
        logger.info("ignored: labels of %s, which the model does not have", _some(lost))
    table = np.full(256, space.ignore_index, np.uint8)
    for number, group in enumerate(joined.groups):
        table[list(group)] = number
    samples = (_relabelled(sample, own, table) for sample in images.samples)
    return replace(images, samples=tuple(samples), label_space=space)


def _relabelled(sample: Sample, own: LabelSpace, table: np.ndarray) -> Sample:
    assert sample.label_map is not None
    return replace(sample, label_map=partial(_read, sample.name, sample.label_map, own, table))


def _read(name: str, label_map: Reader, own: LabelSpace, table: np.ndarray) -> np.ndarray:
    labels = label_map()
    require_known(name, labels, own)
    return table[labels]


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:4]) + (" …" if len(listed) > 4 else "")
