"""KITTI's semantic segmentation benchmark of 2018, on images of KITTI 2015 (Alhaija et al.)."""

from __future__ import annotations

from sfda_edge.data.datasets.cityscapes import SPACE, by_label_id
from sfda_edge.data.datasets.dataset import Dataset, Labels, Layout, Split

KITTI = Dataset(
    name="kitti",
    title="KITTI semantic segmentation",
    splits={
        "training": Split(
            (
                Layout(
                    "training/image_2/{frame}_10.png",
                    (Labels("training/semantic/{frame}_10.png", by_label_id),),
                ),
            ),
            200,
        ),
        "testing": Split((Layout("testing/image_2/{frame}_10.png"),), 200),
    },
    label_space=SPACE,
    size="400 images of about 1242x375",
    licence="CC BY-NC-SA 3.0",
    address="https://www.cvlibs.net/datasets/kitti/eval_semseg.php",
    note="no official validation split; testing has no labels",
)
