"""ACDC: fog, night, rain and snow (Sakaridis et al., ICCV 2021)."""

from __future__ import annotations

from sfda_edge.data.datasets.cityscapes import SPACE, label_forms
from sfda_edge.data.datasets.dataset import Dataset, Layout, Split

_ANY = "{condition}"
_NUM_IMAGES = {
    "train": {_ANY: 1600, "fog": 400, "night": 400, "rain": 400, "snow": 400},
    "val": {_ANY: 406, "fog": 100, "night": 106, "rain": 100, "snow": 100},
    "test": {_ANY: 2000, "fog": 500, "night": 500, "rain": 500, "snow": 500},
}


def _split(condition: str, part: str, num_images: int) -> Split:
    labels = label_forms(f"gt/{condition}/{part}/{{sequence}}/{{frame}}_gt_")
    images = f"rgb_anon/{condition}/{part}/{{sequence}}/{{frame}}_rgb_anon.png"
    return Split((Layout(images, () if part == "test" else labels),), num_images)


ACDC = Dataset(
    name="acdc",
    title="ACDC (adverse conditions)",
    splits={
        part if condition == _ANY else f"{condition}-{part}": _split(condition, part, num_images)
        for part, counts in _NUM_IMAGES.items()
        for condition, num_images in counts.items()
    },
    label_space=SPACE,
    size="4,006 images of 1920x1080",
    licence="registration",
    address="https://acdc.vision.ee.ethz.ch",
    note="test has no labels",
)
