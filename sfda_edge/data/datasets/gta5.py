"""GTA5, "Playing for Data" (Richter et al., ECCV 2016)."""

from __future__ import annotations

from sfda_edge.data.datasets.cityscapes import SPACE, by_label_id
from sfda_edge.data.datasets.dataset import Dataset, Labels, Layout, Split

_OTHER_SIZE = "image and label map differ in size"
GTA5 = Dataset(
    name="gta5",
    title="GTA5 (Playing for Data)",
    splits={
        "all": Split(
            (Layout("images/{frame}.png", (Labels("labels/{frame}.png", by_label_id),)),),
            24_966,
            broken={"15188": _OTHER_SIZE, "17705": _OTHER_SIZE},
        )
    },
    label_space=SPACE,
    size="24,966 images of 1914x1052",
    licence="research and education",
    address="https://download.visinf.tu-darmstadt.de/data/from_games/",
    note="papers train on all images: the lists of split.mat are not read; label maps of another "
    "size than their image, of which its page counts 60, are resized",
    resizes_labels=True,
)
