"""EndoVis 2017 and 2018: instruments in robotic surgery (Allan et al., 2019 and 2020).

Labels are types of instruments. What both years share, ``endovis4``, is found by name when a model
of these classes is scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from runtime.images import ImageError, read_image
from sfda_edge.data.datasets.dataset import Dataset, Labels, Layout, Split
from sfda_edge.data.datasets.label_files import LabelReader, by_number
from sfda_edge.errors import DataError
from sfda_edge.labels.label_spaces import LABEL_SPACES

_SPACE_2017, _SPACE_2018 = LABEL_SPACES["endovis17"], LABEL_SPACES["endovis18"]
# What the camera sees, in a frame of 1920x1080 with a black border.
_FRAME_HW, _SEEN = (1080, 1920), (slice(28, 1052), slice(320, 1600))
# Parts of the names of the folders of 2017, which have each side's instrument apart, such as
# Left_Prograsp_Forceps_labels. They begin with the class of number 1.
_FOLDERS = (
    *("Bipolar_Forceps", "Prograsp_Forceps", "Large_Needle_Driver", "Vessel_Sealer"),
    *("Grasping_Retractor", "Monopolar_Curved_Scissors", "Other"),
)
# Of the 15 sequences of 2018 that have types, those that are scored.
_SCORED = (2, 5, 9, 15)


def _cropped(pixels: np.ndarray) -> np.ndarray:
    return pixels[_SEEN] if pixels.shape[:2] == _FRAME_HW else pixels


def _read_frame(path: Path) -> np.ndarray:
    """A frame without its black border."""
    return _cropped(read_image(path))


def _read_types(frame: Path) -> np.ndarray:
    """A label map of 2017: each type has a folder with a mask of the same name.

    Raises:
        ImageError: a folder lacks its mask, or its name says no type.
    """
    found: np.ndarray | None = None
    for folder in sorted(path for path in frame.parent.iterdir() if path.is_dir()):
        mask = folder / frame.name
        types = [n for n, name in enumerate(_FOLDERS, start=1) if name in folder.name]
        if not types:
            if not mask.exists():
                continue  # a folder of something else
            raise ImageError(f"{folder}: the folder's name says no type of instrument")
        if not mask.exists():
            raise ImageError(f"{mask} is missing: each type of the sequence has a mask a frame")
        pixels = _cropped(_read_mask(mask))
        found = np.zeros_like(pixels) if found is None else found
        if found.shape != pixels.shape:
            raise ImageError(f"{mask}: its size differs from that of the frame's other masks")
        found[pixels > 0] = types[0]
    if found is None:
        raise ImageError(f"{frame.parent}: no folder has a mask {frame.name}")
    return found


def _read_mask(path: Path) -> np.ndarray:
    """A mask (H, W); some have three channels, which are alike."""
    pixels = read_image(path)
    if (pixels != pixels[..., :1]).any():
        raise ImageError(f"{path}: a mask is grey")
    return pixels[..., 0]


def _has_masks(frame: Path) -> bool:
    return any(frame.parent.glob(f"*/{frame.name}"))


def _by_type(num_types: int, factor: int = 1) -> LabelReader:
    return by_number({factor * index: index for index in range(num_types)})


_raw_2017 = _by_type(_SPACE_2017.num_classes)
_raw_2018 = _by_type(_SPACE_2018.num_classes)
_prepared_2017 = _by_type(_SPACE_2017.num_classes, factor=32)
_sequence = "instrument_dataset_{sequence}"

ENDOVIS17 = Dataset(
    name="endovis17",
    title="EndoVis 2017, types of instruments",
    splits={
        "all": Split(
            (
                Layout(
                    f"{_sequence}/left_frames/{{frame}}.png",
                    (
                        Labels(
                            f"{_sequence}/ground_truth/{{frame}}.png",
                            _read_types,
                            _has_masks,
                            "ground_truth/TYPE_labels/{frame}.png",
                        ),
                    ),
                ),
                Layout(
                    f"cropped_train/{_sequence}/images/{{frame}}.{{ending}}",
                    (
                        Labels(
                            f"cropped_train/{_sequence}/instruments_masks/{{frame}}.png",
                            _prepared_2017,
                        ),
                    ),
                ),
                Layout("img/{frame}.png", (Labels("type_lbl/{frame}.png", _raw_2017),)),
            ),
            1800,
        )
    },
    label_space=_SPACE_2017,
    size="1,800 frames of 1920x1080",
    licence="challenge; registration",
    address="https://endovissub2017-roboticinstrumentsegmentation.grand-challenge.org",
    note="frames are cropped to the 1280x1024 that the camera sees; read are the challenge's "
    "folders, those of its winners' prepare_data.py (cropped_train), and img/ with type_lbl/",
    read_image=_read_frame,
)


def _number(sequence: str) -> int:
    """A sequence's number, which says whether it is scored.

    Raises:
        DataError: it is none.
    """
    digits = sequence.removeprefix("_")
    if not digits.isascii() or not digits.isdigit():
        raise DataError(
            f"endovis18: 'seq{sequence}' has no number that says whether the sequence is scored; "
            "names are those of ISINet, such as seq_1_frame000.png"
        )
    return int(digits)


def _split_2018(part: str, num_images: int) -> Split:
    def keep(fields: Mapping[str, str]) -> bool:
        return (_number(fields["sequence"]) in _SCORED) == (part == "val")

    def layout(images: str, annotations: str, frame: str) -> Layout:
        return Layout(f"{images}/{frame}", (Labels(f"{annotations}/{frame}", _raw_2018),))

    released = (f"{part}/images", f"{part}/annotations")
    names = ("seq_{sequence}_{frame}.png", "seq{sequence}_{frame}.png", "seq{sequence}/{frame}.png")
    layouts = [layout(*released, name) for name in names]
    return Split((*layouts, layout("img", "type_lbl", names[0])), num_images, keep)


ENDOVIS18 = Dataset(
    name="endovis18",
    title="EndoVis 2018, types of instruments",
    splits={"train": _split_2018("train", 1639), "val": _split_2018("val", 596)},
    label_space=_SPACE_2018,
    size="2,235 frames of 1280x1024",
    licence="challenge; registration",
    address="https://endovissub2018-roboticscenesegmentation.grand-challenge.org",
    note="the challenge has no types: ISINet added them, and the train/ and val/ with images/ and "
    "annotations/ that its data/organize2018.py writes are read, or img/ with type_lbl/; val are "
    "sequences 2, 5, 9 and 15",
)
