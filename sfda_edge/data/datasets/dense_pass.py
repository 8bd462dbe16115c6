"""DensePASS: panoramas of street scenes (Ma et al., ITSC 2021)."""

from __future__ import annotations

from sfda_edge.data.datasets.cityscapes import SPACE, by_train_id
from sfda_edge.data.datasets.dataset import Dataset, Labels, Layout, Split

_LABELS = (Labels("gtFine/val/cs/{frame}_labelTrainIds.png", by_train_id),)

DENSEPASS = Dataset(
    name="densepass",
    title="DensePASS",
    splits={
        "train": Split((Layout("leftImg8bit/train/{city}/{frame}.{ending}"),), 2000),
        "val": Split(
            (
                Layout("leftImg8bit/val/cs/{frame}_.png", _LABELS),
                Layout("leftImg8bit/val/cs/{frame}.png", _LABELS),
            ),
            100,
        ),
    },
    label_space=SPACE,
    size="2,100 panoramas of 2048x400",
    licence="not stated",
    address="https://github.com/chma1024/DensePASS",
    note="training panoramas have no labels; a model of densepass13 is scored on its 13 classes",
)
