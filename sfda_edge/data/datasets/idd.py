"""IDD, the India Driving Dataset (Varma et al., WACV 2019), parts I and II."""

from __future__ import annotations

from runtime.bundle.labels import IGNORED
from sfda_edge.data.datasets.cityscapes import SPACE
from sfda_edge.data.datasets.dataset import Dataset, Labels, Layout, Split
from sfda_edge.data.datasets.label_files import by_polygon

# Its names are Cityscapes', but that terrain is the part of what is not to be driven on
# (csTrainId of the official anue_labels.py). Other labels are ignored; a polegroup is one of these,
# not a group of poles.
_by_name = by_polygon(
    {
        "non-drivable fallback" if name == "terrain" else name: index
        for index, name in enumerate(SPACE.names)
    }
    | {"polegroup": IGNORED}
)


def _split(part: str, num_images: int) -> Split:
    images = f"leftImg8bit/{part}/{{drive}}/{{frame}}_leftImg8bit.{{ending}}"
    labels = Labels(f"gtFine/{part}/{{drive}}/{{frame}}_gtFine_polygons.json", _by_name)
    return Split((Layout(images, () if part == "test" else (labels,)),), num_images)


IDD = Dataset(
    name="idd",
    title="IDD (India Driving Dataset)",
    splits={
        "train": _split("train", 14_027),
        "val": _split("val", 2_036),
        "test": _split("test", 4_038),
    },
    label_space=SPACE,
    size="20,101 images of 1920x1080 and 1280x720",
    licence="registration",
    address="https://idd.insaan.iiit.ac.in",
    note="numbers are those of parts I and II in one folder; labels are drawn from the polygons; "
    "test has no labels",
)
