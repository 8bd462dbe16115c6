"""ClassMap: from the classes that a model knows to those that its user asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.bundle.labels import LabelSpace
from sfda_edge.errors import DataError
from sfda_edge.labels.label_spaces import LABEL_SPACES, label_space
from sfda_edge.toml_file import read_toml

_FOLDER = Path(__file__).parent / "class_maps"


@dataclass(frozen=True)
class ClassMap:
    """Source classes whose probabilities are summed into each target class.

    Attributes:
        target: the classes that come out.
        groups: for each target class, the indices of the source classes summed into it. A source
            class in no group is dropped: it never wins.
    """

    target: LabelSpace
    groups: tuple[tuple[int, ...], ...]

    def matrix(self, num_source_classes: int) -> list[list[float]]:
        """Row per target class, column per source class: 1 where the source class is summed."""
        return [[float(s in group) for s in range(num_source_classes)] for group in self.groups]


def class_map_names() -> list[str]:
    """The class maps that ship with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_class_map(name_or_path: str, source: LabelSpace) -> ClassMap:
    """A class map by name or from a TOML file, for a model with the classes of ``source``.

    Raises:
        DataError: no such map, or it does not fit the model's classes: each has to be merged into
            a target class or dropped, by name.
    """
    path = (
        Path(name_or_path) if name_or_path.endswith(".toml") else _FOLDER / f"{name_or_path}.toml"
    )
    if not path.is_file() and name_or_path.endswith(".toml"):
        raise DataError(f"{path} does not exist")
    if not path.is_file():
        known = ", ".join(class_map_names())
        raise DataError(f"unknown class map '{name_or_path}'; known: {known}, or a .toml file")
    content = read_toml(path)
    unknown = set(content) - {"target", "merge", "drop"}
    if unknown or not {"target", "merge"} <= set(content):
        raise DataError(
            f"{path}: a class map has target and merge, and may have drop; "
            f"found {', '.join(content) or 'nothing'}"
        )
    _require_texts(path, content)
    target = label_space(content["target"])
    return ClassMap(target, _groups(path, content, source, target))


def packaged_class_map(source: LabelSpace, target: LabelSpace) -> ClassMap | None:
    """The class map that ships for two label spaces, which are known by their classes' names."""
    names = {space.names: name for name, space in LABEL_SPACES.items()}
    name = f"{names.get(source.names)}-{names.get(target.names)}"
    return load_class_map(name, source) if name in class_map_names() else None


def _require_texts(path: Path, content: dict[str, Any]) -> None:
    """Check that a map's names are texts where texts belong.

    Raises:
        DataError: they are not.
    """
    merge, drop = content["merge"], content.get("drop", [])
    lists = [drop, *(merge.values() if isinstance(merge, dict) else [None])]
    texts = all(isinstance(one, list) and all(isinstance(n, str) for n in one) for one in lists)
    if not texts or not isinstance(content["target"], str):
        raise DataError(
            f"{path}: target must be a text, [merge] a table of lists of class names, and drop a "
            "list of class names"
        )


def _groups(
    path: Path, content: dict[str, Any], source: LabelSpace, target: LabelSpace
) -> tuple[tuple[int, ...], ...]:
    merge: dict[str, list[str]] = content["merge"]
    if list(merge) != list(target.names):
        raise DataError(
            f"{path}: [merge] must list the target's classes in order: {', '.join(target.names)}"
        )
    listed = [name for names in merge.values() for name in names]
    twice = sorted({name for name in listed if listed.count(name) > 1})
    if twice:
        raise DataError(f"{path}: merged more than once: {', '.join(twice)}")
    missing = [name for name in listed if name not in source.names]
    if missing:
        raise DataError(f"{path}: the model has no class {', '.join(missing)}")
    left = [n for n in source.names if n not in listed and n not in content.get("drop", [])]
    if left:
        raise DataError(f"{path}: neither merged nor dropped: {', '.join(left)}")
    return tuple(tuple(source.names.index(name) for name in names) for names in merge.values())
