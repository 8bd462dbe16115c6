"""Mapillary Vistas, with the 66 classes of versions 1.1 and 1.2 (Neuhold et al., ICCV 2017)."""

from __future__ import annotations

from sfda_edge.data.datasets.cityscapes import SPACE
from sfda_edge.data.datasets.dataset import Dataset, Labels, Layout, Split
from sfda_edge.data.datasets.label_files import by_number

# Curbs count as sidewalk, crossings and lane markings as road, the poles of signs as poles.
_NUMBERS = {
    "road": (13, 24, 41),
    "sidewalk": (2, 15),
    "building": (17,),
    "wall": (6,),
    "fence": (3,),
    "pole": (45, 47),
    "traffic light": (48,),
    "traffic sign": (50,),
    "vegetation": (30,),
    "terrain": (29,),
    "sky": (27,),
    "person": (19,),
    "rider": (20, 21, 22),
    "car": (55,),
    "truck": (61,),
    "bus": (54,),
    "train": (58,),
    "motorcycle": (57,),
    "bicycle": (52,),
}
_by_class = by_number(
    {n: SPACE.names.index(name) for name, numbers in _NUMBERS.items() for n in numbers}
)


def _split(part: str, num_images: int) -> Split:
    labels = (
        Labels(f"{part}/v1.2/labels/{{frame}}.png", _by_class),  # as version 2.0 has them
        Labels(f"{part}/labels/{{frame}}.png", _by_class),
    )
    images = f"{part}/images/{{frame}}.jpg"
    return Split((Layout(images, () if part == "testing" else labels),), num_images)


MAPILLARY = Dataset(
    name="mapillary",
    title="Mapillary Vistas",
    splits={
        "training": _split("training", 18_000),
        "validation": _split("validation", 2_000),
        "testing": _split("testing", 5_000),
    },
    label_space=SPACE,
    size="25,000 images of about 4000x3000",
    licence="CC BY-NC-SA 4.0; registration",
    address="https://www.mapillary.com/dataset/vistas",
    note="labels of version 1.2, as the 19 classes of Cityscapes; testing has no labels",
)
