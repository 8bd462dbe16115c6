"""BDD100K's semantic segmentation, of 10,000 images (Yu et al., CVPR 2020)."""

from __future__ import annotations

from sfda_edge.data.datasets.cityscapes import SPACE, by_train_id
from sfda_edge.data.datasets.dataset import Dataset, Labels, Layout, Split


def _split(part: str, num_images: int) -> Split:
    now = Labels(f"labels/sem_seg/masks/{part}/{{frame}}.png", by_train_id)
    before = f"labels/{part}/{{frame}}_train_id.png"
    forms = {
        f"images/10k/{part}/{{frame}}.jpg": now,
        f"seg/images/{part}/{{frame}}.jpg": Labels(f"seg/{before}", by_train_id),
        f"images/{part}/{{frame}}.jpg": Labels(before, by_train_id),
    }
    layouts = (
        Layout(images, () if part == "test" else (labels,)) for images, labels in forms.items()
    )
    return Split(tuple(layouts), num_images)


BDD100K = Dataset(
    name="bdd100k",
    title="BDD100K, semantic segmentation",
    splits={
        "train": _split("train", 7_000),
        "val": _split("val", 1_000),
        "test": _split("test", 2_000),
    },
    label_space=SPACE,
    size="10,000 images of 1280x720, 1.4 GB",
    licence="research, not for profit; registration",
    address="https://bdd-data.berkeley.edu",
    note="test has no labels; both releases are read: images/10k, and seg/ of before",
)
