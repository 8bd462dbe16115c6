"""SYNTHIA-RAND-CITYSCAPES (Ros et al., CVPR 2016)."""

from __future__ import annotations

from sfda_edge.data.datasets.dataset import Dataset, Labels, Layout, Split
from sfda_edge.data.datasets.label_files import by_first_channel
from sfda_edge.labels.label_spaces import LABEL_SPACES

_SPACE = LABEL_SPACES["cityscapes16"]
# Parking slots, road work and lane markings are no class, as in the literature.
_NUMBERS = {
    "sky": 1,
    "building": 2,
    "road": 3,
    "sidewalk": 4,
    "fence": 5,
    "vegetation": 6,
    "pole": 7,
    "car": 8,
    "traffic sign": 9,
    "person": 10,
    "bicycle": 11,
    "motorcycle": 12,
    "traffic light": 15,
    "rider": 17,
    "bus": 19,
    "wall": 21,
}
_by_class = by_first_channel(
    {number: _SPACE.names.index(name) for name, number in _NUMBERS.items()}
)

SYNTHIA = Dataset(
    name="synthia",
    title="SYNTHIA-RAND-CITYSCAPES",
    splits={
        "all": Split(
            (Layout("RGB/{frame}.png", (Labels("GT/LABELS/{frame}.png", _by_class),)),), 9_400
        )
    },
    label_space=_SPACE,
    size="9,400 images of 1280x760",
    licence="not commercial; see its page",
    address="https://synthia-dataset.net/downloads",
    note="16 classes; a model of cityscapes13 is scored on its 13 of them",
)
