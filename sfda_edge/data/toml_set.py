"""A user's own data set, described by a TOML file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runtime.bundle.labels import IGNORED, LabelSpace
from runtime.images import IMAGE_SUFFIXES
from sfda_edge.data.datasets.dataset import Dataset, Labels, Layout, Split
from sfda_edge.data.datasets.label_files import (
    Colour,
    LabelReader,
    by_colour,
    by_listed_number,
)
from sfda_edge.data.datasets.opening import as_image_set, split_in
from sfda_edge.data.datasets.path_template import PathTemplate
from sfda_edge.data.images import ImageSet
from sfda_edge.errors import DataError
from sfda_edge.labels.label_spaces import LABEL_SPACES, spread_colours
from sfda_edge.toml_file import read_toml

_KEYS = ("images", "labels", "folder", "classes", "palette", "colours", "numbers", "ignored")


def open_toml_set(path: Path) -> ImageSet:
    """The images that a TOML file describes.

    For example::

        images = "frames/{drive}/{frame}.jpg"       # below the file's folder, or below "folder"
        labels = "masks/{drive}/{frame}_mask.png"
        classes = ["road", "car"]                   # or a known label space: "cityscapes"

    Label maps have the classes' numbers in their order, unless ``[numbers]`` gives each class a
    list of them, or ``[colours]`` a list of colours. ``ignored`` is a list of the same kind; 255
    is ignored unless a class has it. A number or colour that is in none of them is an error.
    ``palette`` is what classes are drawn in.

    Raises:
        DataError: the file describes no data set, nothing of it is there, or labels are missing.
    """
    content = read_toml(path)
    if unknown := set(content) - set(_KEYS):
        raise DataError(f"{path}: unknown {', '.join(sorted(unknown))}; known: {', '.join(_KEYS)}")
    try:
        dataset = _dataset(path, content)
        folder = path.absolute().parent / _text(content, "folder", ".")
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path}: {error}") from None
    found = split_in(dataset, "all", folder)
    if found is None:
        raise DataError(f"{path}: no images {content['images']} below {folder}")
    if found.label_template and not found.num_labelled:
        raise DataError(f"{path}: no label maps {found.label_template} below {folder}")
    return as_image_set(found, str(path))


def _dataset(path: Path, content: Mapping[str, Any]) -> Dataset:
    images = PathTemplate(_text(content, "images"))
    space = _label_space(content)
    labels: tuple[Labels, ...] = ()
    if "labels" in content:
        template = PathTemplate(_text(content, "labels"))
        if unknown := template.fields - images.fields:
            raise ValueError(f"labels has {{{min(unknown)}}}, which images does not have")
        if template.text == images.text:
            raise ValueError("labels names the images themselves")
        labels = (Labels(template.text, _reader(content, space)),)
    elif unused := {"numbers", "colours", "ignored"} & set(content):
        raise ValueError(f"{min(unused)} is of labels, and no labels are named")
    suffix = Path(images.text).suffix.lower()
    if suffix and "{" not in suffix and suffix not in IMAGE_SUFFIXES:
        read = ", ".join(sorted(IMAGE_SUFFIXES))
        raise ValueError(f"images end in '{suffix}', which is not read: {read}")
    return Dataset(
        name=path.name,
        title=path.stem,
        splits={"all": Split((Layout(images.text, labels),))},
        label_space=space,
        size="",
        licence="",
        address="",
    )


def _text(content: Mapping[str, Any], key: str, default: str | None = None) -> str:
    found = content.get(key, default)
    if not isinstance(found, str) or not found or "\0" in found:
        raise ValueError(f"{key} must be a text, found {found!r}")
    return found


def _label_space(content: Mapping[str, Any]) -> LabelSpace:
    classes, palette = content.get("classes"), content.get("palette")
    if isinstance(classes, str):
        if classes not in LABEL_SPACES:
            raise ValueError(f"unknown classes '{classes}'; known: {', '.join(LABEL_SPACES)}")
        if palette is not None:
            raise ValueError(f"palette is for classes that are listed; '{classes}' has its own")
        return LABEL_SPACES[classes]
    if not isinstance(classes, list):
        raise ValueError("classes must be a list of names, or the name of a label space")
    if palette is None:
        palette = [list(colour) for colour in spread_colours(len(classes))]
    return LabelSpace(tuple(classes), tuple(_list(palette, "palette", _colour)), IGNORED)


def _reader(content: Mapping[str, Any], space: LabelSpace) -> LabelReader:
    """Reads label maps as the file says that they are written."""
    if "numbers" in content and "colours" in content:
        raise ValueError("labels are written in numbers or in colours, not in both")
    ignored = content.get("ignored", [])
    if "colours" in content:
        colours = _by_class(content["colours"], "colours", space, _colour)
        skipped = _ignored(_list(ignored, "ignored", _colour), colours)
        return by_colour(colours | skipped)
    always = {IGNORED: IGNORED}
    if "numbers" in content:
        numbers = _by_class(content["numbers"], "numbers", space, _number)
    else:
        numbers = {index: index for index in range(space.num_classes)}
        always[space.ignore_index] = IGNORED
    skipped = _ignored(_list(ignored, "ignored", _number), numbers)
    return by_listed_number(always | numbers | skipped)


def _ignored(listed: list[Any], classes: Mapping[Any, int]) -> dict[Any, int]:
    """What is ignored, which must be of no class."""
    if both := [value for value in listed if value in classes]:
        raise ValueError(f"{both[0]} is ignored and of a class, too")
    return dict.fromkeys(listed, IGNORED)


def _by_class(
    table: Any, key: str, space: LabelSpace, item: Callable[[Any, str], Any]
) -> dict[Any, int]:
    """The class of each number or colour that a table lists by class names."""
    if not isinstance(table, dict):
        raise ValueError(f"{key} must be a table that lists them by class, found {table!r}")
    if unknown := set(table) - set(space.names):
        raise ValueError(f"[{key}] has '{min(unknown)}', which is no class")
    found: dict[Any, int] = {}
    for name, values in table.items():
        for value in _list(values, key, item):
            if value in found:
                raise ValueError(f"[{key}] has {value} twice")
            found[value] = space.names.index(name)
    return found


def _list(values: Any, key: str, item: Callable[[Any, str], Any]) -> list[Any]:
    if not isinstance(values, list):
        raise ValueError(f"{key} must have lists, found {values!r}")
    return [item(value, key) for value in values]


def _number(value: Any, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 255:
        raise ValueError(f"{key}: {value!r} is no number from 0 to 255")
    return value


def _colour(value: Any, key: str) -> Colour:
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError(f"{key}: {value!r} is no colour; one is [red, green, blue]")
    red, green, blue = (_number(level, key) for level in value)
    return red, green, blue
