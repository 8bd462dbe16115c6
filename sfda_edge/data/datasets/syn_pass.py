"""SynPASS: panoramas rendered with CARLA (Zhang et al., Trans4PASS+, 2022)."""

from __future__ import annotations

from sfda_edge.data.datasets.dataset import Dataset, Labels, Layout, Split
from sfda_edge.data.datasets.label_files import by_number
from sfda_edge.labels.label_spaces import LABEL_SPACES

_SPACE = LABEL_SPACES["densepass13"]
_NUMBERS = {
    1: "building",
    2: "fence",
    4: "person",
    5: "pole",
    6: "road",  # road lines
    7: "road",
    8: "sidewalk",
    9: "vegetation",
    10: "car",  # all vehicles
    11: "wall",
    12: "traffic sign",
    13: "sky",
    18: "traffic light",
    22: "terrain",
}
_by_class = by_number({number: _SPACE.names.index(name) for number, name in _NUMBERS.items()})


def _split(part: str, num_images: int) -> Split:
    layout = Layout(
        f"img/{{weather}}/{part}/{{place}}/{{frame}}.jpg",
        (Labels(f"semantic/{{weather}}/{part}/{{place}}/{{frame}}_trainID.png", _by_class),),
    )
    return Split((layout,), num_images)


SYNPASS = Dataset(
    name="synpass",
    title="SynPASS",
    splits={
        "train": _split("train", 5700),
        "val": _split("val", 2180),
        "test": _split("test", 1200),
    },
    label_space=_SPACE,
    size="9,080 panoramas of 2048x1024",
    licence="not stated",
    address="https://github.com/jamycheung/Trans4PASS",
    note="numbers of val and test are those of the published lists; its README says 1,690 of each",
)
