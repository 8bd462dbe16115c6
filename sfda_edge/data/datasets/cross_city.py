"""The cross-city set of NTHU: four cities (Chen et al., ICCV 2017)."""

from __future__ import annotations

from sfda_edge.data.datasets.cityscapes import LABEL_IDS
from sfda_edge.data.datasets.cityscapes import SPACE as CITYSCAPES_SPACE
from sfda_edge.data.datasets.dataset import Dataset, Labels, Layout, Split
from sfda_edge.data.datasets.label_files import by_number
from sfda_edge.labels.label_spaces import LABEL_SPACES

_SPACE = LABEL_SPACES["cityscapes13"]
_by_label_id = by_number(
    {
        number: _SPACE.names.index(name)
        for number, name in zip(LABEL_IDS, CITYSCAPES_SPACE.names, strict=True)
        if name in _SPACE.names
    }
)


def _splits(city: str) -> dict[str, Split]:
    labels = (Labels(f"{city}/Labels/Test/{{frame}}_eval.png", _by_label_id),)
    test = Layout(f"{city}/Images/Test/{{frame}}.{{ending}}", labels)
    return {
        f"{city}-train": Split((Layout(f"{city}/Images/Train/{{frame}}.{{ending}}"),), 3200),
        f"{city}-test": Split((test,), 100),
    }


CROSS_CITY = Dataset(
    name="cross-city",
    title="NTHU cross-city",
    splits={
        name: split
        for city in ("Rome", "Rio", "Tokyo", "Taipei")
        for name, split in _splits(city).items()
    },
    label_space=_SPACE,
    size="13,200 images of 2048x1024",
    licence="not stated; on request",
    address="https://yihsinchen.github.io/segmentation_adaptation_dataset/",
    note="training images have no labels",
)
