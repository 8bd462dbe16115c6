"""Label spaces by name, or from a user's TOML file."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Any

from runtime.bundle.labels import LabelSpace
from sfda_edge.errors import DataError
from sfda_edge.toml_file import read_toml

_CITYSCAPES = (
    ("road", (128, 64, 128)),
    ("sidewalk", (244, 35, 232)),
    ("building", (70, 70, 70)),
    ("wall", (102, 102, 156)),
    ("fence", (190, 153, 153)),
    ("pole", (153, 153, 153)),
    ("traffic light", (250, 170, 30)),
    ("traffic sign", (220, 220, 0)),
    ("vegetation", (107, 142, 35)),
    ("terrain", (152, 251, 152)),
    ("sky", (70, 130, 180)),
    ("person", (220, 20, 60)),
    ("rider", (255, 0, 0)),
    ("car", (0, 0, 142)),
    ("truck", (0, 0, 70)),
    ("bus", (0, 60, 100)),
    ("train", (0, 80, 100)),
    ("motorcycle", (0, 0, 230)),
    ("bicycle", (119, 11, 32)),
)
# Of Cityscapes, what SYNTHIA has (16), and what the cross-city labels have of that (13).
_NOT_IN_SYNTHIA = {"terrain", "truck", "train"}
_NOT_IN_CROSS_CITY = _NOT_IN_SYNTHIA | {"wall", "fence", "pole"}
# SynPASS and DensePASS: people are one class, vehicles another (Trans4PASS).
_DENSEPASS13 = (*_CITYSCAPES[:12], ("car", (0, 0, 142)))
_STANFORD2D3D = (
    *("beam", "board", "bookcase", "ceiling", "chair", "clutter", "column", "door", "floor"),
    *("sofa", "table", "wall", "window"),
)
# What its pinhole images and panoramas are compared on (Trans4PASS+).
_STANFORD2D3D_8 = ("ceiling", "chair", "door", "floor", "sofa", "table", "wall", "window")
# Instrument types: what 2017 and 2018 share (SePIG, MICCAI 2021), and each year's own.
_ENDOVIS = ("background", "forceps", "needle driver", "scissors")
_ENDOVIS17 = (
    *("background", "bipolar forceps", "prograsp forceps", "large needle driver", "vessel sealer"),
    *("grasping retractor", "monopolar curved scissors", "other"),
)
_ENDOVIS18 = (
    *("background", "bipolar forceps", "prograsp forceps", "large needle driver"),
    *("monopolar curved scissors", "ultrasound probe", "suction instrument", "clip applier"),
)
_CAMVID = (
    ("sky", (128, 128, 128)),
    ("building", (128, 0, 0)),
    ("pole", (192, 192, 128)),
    ("road", (128, 64, 128)),
    ("pavement", (60, 40, 222)),
    ("tree", (128, 128, 0)),
    ("sign/symbol", (192, 128, 128)),
    ("fence", (64, 64, 128)),
    ("car", (64, 0, 128)),
    ("pedestrian", (64, 64, 0)),
    ("bicyclist", (0, 128, 192)),
)


def _space(pairs: tuple[tuple[str, tuple[int, int, int]], ...], ignore_index: int) -> LabelSpace:
    return LabelSpace(tuple(n for n, _ in pairs), tuple(c for _, c in pairs), ignore_index)


def _without(names: set[str]) -> LabelSpace:
    return _space(tuple(pair for pair in _CITYSCAPES if pair[0] not in names), 255)


def spread_colours(count: int) -> list[tuple[int, int, int]]:
    """``count`` colours, evenly over the hues."""
    hues = (colorsys.hsv_to_rgb(index / count, 0.65, 0.85) for index in range(count))
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in hues]


def _coloured(names: tuple[str, ...]) -> LabelSpace:
    """Colours over the hues; a background is black."""
    black = [(0, 0, 0)] if names[0] == "background" else []
    colours = (*black, *spread_colours(len(names) - len(black)))
    return LabelSpace(names, colours, 255)


LABEL_SPACES = {
    "cityscapes": _space(_CITYSCAPES, 255),
    # The EdgeNets release of ESPNetv2 has a twentieth output for everything else.
    "cityscapes20": _space((*_CITYSCAPES, ("background", (0, 0, 0))), 255),
    "cityscapes16": _without(_NOT_IN_SYNTHIA),
    "cityscapes13": _without(_NOT_IN_CROSS_CITY),
    "densepass13": _space(_DENSEPASS13, 255),
    "stanford2d3d": _coloured(_STANFORD2D3D),
    "stanford2d3d8": _coloured(_STANFORD2D3D_8),
    "endovis4": _coloured(_ENDOVIS),
    "endovis17": _coloured(_ENDOVIS17),
    "endovis18": _coloured(_ENDOVIS18),
    "camvid": _space(_CAMVID, 11),
    "binary": LabelSpace(("background", "foreground"), ((0, 0, 0), (230, 80, 60)), 255),
}


def label_space(name_or_path: str) -> LabelSpace:
    """A label space by name, or from a TOML file with ``names``, ``palette`` and ``ignore_index``.

    Without a palette, colours are spread evenly over the hues.

    Raises:
        DataError: no such name or file, or the file does not describe a label space.
    """
    if name_or_path in LABEL_SPACES:
        return LABEL_SPACES[name_or_path]
    if not name_or_path.endswith(".toml"):
        known = ", ".join(LABEL_SPACES)
        raise DataError(f"unknown label space '{name_or_path}'; known: {known}, or a .toml file")
    content: dict[str, Any] = read_toml(Path(name_or_path))
    unknown = set(content) - {"names", "palette", "ignore_index"}
    if unknown or "names" not in content:
        raise DataError(
            f"{name_or_path}: a label space has names, and may have palette and ignore_index; "
            f"found {', '.join(content) or 'nothing'}"
        )
    names, palette = content["names"], content.get("palette")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{name_or_path}: names must be a list of texts, found {names!r}")
    try:
        colours = tuple(
            (int(r), int(g), int(b)) for r, g, b in palette or spread_colours(len(names))
        )
        return LabelSpace(tuple(names), colours, content.get("ignore_index", 255))
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{name_or_path}: {error}") from None
