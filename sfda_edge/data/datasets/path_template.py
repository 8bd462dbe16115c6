"""PathTemplate: where a data set keeps its files, as one line of text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from runtime.images import in_order
from sfda_edge.errors import DataError

_FIELD = re.compile(r"\{([a-z_]+)\}")


class FoundPath(NamedTuple):
    """A path below a folder, with ``/`` between names, and what stands for each field."""

    relative: str
    fields: dict[str, str]


class PathTemplate:
    """Relative paths with fields, such as ``gtFine/val/{city}/{stem}_gtFine_labelIds.png``.

    A field is part of one name, of at least one character. One that stands twice is the same both
    times. The fields of an image's path fill in the path of its labels. ``.JPG`` fits ``.jpg``.

    Raises:
        ValueError: the text is no relative path below a folder, or its braces enclose no field.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.parts = text.split("/")
        self.fields = frozenset(_FIELD.findall(text))
        if any(part in ("", ".", "..") for part in self.parts) or "\\" in text or "\0" in text:
            raise ValueError(f"'{text}' is no relative path below a folder")
        if set("{}") & set(_FIELD.sub("", text)):
            raise ValueError(f"'{text}': a field is a word of small letters in braces: {{frame}}")

    def find(self, folder: Path) -> Iterator[FoundPath]:
        """All files that fit, by name. Hidden files and folders are left out.

        Raises:
            DataError: a folder cannot be read.
        """
        return self._below(folder, 0, FoundPath("", {}))

    def _below(self, folder: Path, depth: int, above: FoundPath) -> Iterator[FoundPath]:
        last = depth + 1 == len(self.parts)
        stem, ending = _split(self.parts[depth]) if last else (self.parts[depth], "")
        name_fits = re.compile(f"{_expression(stem, above.fields)}(?i:{re.escape(ending)})")
        for name, is_folder in _entries(folder):
            match = name_fits.fullmatch(name)
            if match is None or is_folder == last:
                continue
            found = FoundPath(f"{above.relative}{name}", above.fields | match.groupdict())
            if last:
                yield found
            else:
                below = found._replace(relative=f"{found.relative}/")
                yield from self._below(folder / name, depth + 1, below)

    def fill(self, fields: Mapping[str, str]) -> str:
        """The relative path that has these fields.

        Raises:
            DataError: it would not be below the folder.
        """
        path = self.text.format_map(fields)
        if any(part in (".", "..") for part in path.split("/")):
            raise DataError(f"{self.text} would be {path}, which is not below its folder")
        return path

    def start(self) -> str:
        """The folders before the first field, with ``/`` between them; empty for none."""
        plain: list[str] = []
        for part in self.parts[:-1]:
            if _FIELD.search(part):
                break
            plain.append(part)
        return "/".join(plain)


def _expression(part: str, known: Mapping[str, str]) -> str:
    """A regular expression for one name, in which each field that is not known is a group."""
    expression, seen, end = "", set(known), 0
    for match in _FIELD.finditer(part):
        expression += re.escape(part[end : match.start()])
        name, end = match[1], match.end()
        if name in known:
            expression += re.escape(known[name])
        else:
            expression += f"(?P={name})" if name in seen else f"(?P<{name}>.+)"
        seen.add(name)
    return expression + re.escape(part[end:])


def _split(name: str) -> tuple[str, str]:
    """A name and the ending of its own text, such as ``.jpg``; none after the last field."""
    stem, dot, ending = name.rpartition(".")
    return (stem, dot + ending) if dot and not set("{}") & set(ending) else (name, "")


def _place(entry: tuple[Path, bool]) -> tuple[Any, ...]:
    return in_order(entry[0])


def _entries(folder: Path) -> list[tuple[str, bool]]:
    """The names in a folder in order, and whether each is a folder; none where there is none."""
    try:
        with os.scandir(folder) as entries:
            shown = (entry for entry in entries if not entry.name.startswith("."))
            named = [(Path(entry.name), entry.is_dir()) for entry in shown]
            return [(path.name, is_folder) for path, is_folder in sorted(named, key=_place)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from None
