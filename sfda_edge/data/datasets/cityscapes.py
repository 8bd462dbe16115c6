"""Cityscapes (Cordts et al., CVPR 2016), and the numbers that others share with it."""

from __future__ import annotations

from sfda_edge.data.datasets.dataset import Dataset, Labels, Layout, Split
from sfda_edge.data.datasets.label_files import by_number
from sfda_edge.labels.label_spaces import LABEL_SPACES

SPACE = LABEL_SPACES["cityscapes"]
# The official scripts' labelIds of the 19 classes that are scored, in the order of these.
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
by_label_id = by_number({number: index for index, number in enumerate(LABEL_IDS)})
by_train_id = by_number({index: index for index in range(SPACE.num_classes)})


def label_forms(stem: str) -> tuple[Labels, ...]:
    """The label maps that the official scripts write, the ready ones first.

    Args:
        stem: their paths up to ``labelIds.png``.
    """
    return (
        Labels(f"{stem}labelTrainIds.png", by_train_id),
        Labels(f"{stem}labelIds.png", by_label_id),
    )


def _split(name: str, num_images: int) -> Split:
    stem = "{city}/{frame}"
    labels = label_forms(f"gtFine/{name}/{stem}_gtFine_")
    images = f"leftImg8bit/{name}/{stem}_leftImg8bit.png"
    return Split((Layout(images, () if name == "test" else labels),), num_images)


CITYSCAPES = Dataset(
    name="cityscapes",
    title="Cityscapes",
    splits={
        "train": _split("train", 2975),
        "val": _split("val", 500),
        "test": _split("test", 1525),
    },
    label_space=SPACE,
    size="5,000 images of 2048x1024, 11 GB",
    licence="not commercial; registration",
    address="https://www.cityscapes-dataset.com/downloads",
    note="labels of test are held back: what gtFine/test holds is not read",
)
