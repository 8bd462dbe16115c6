"""Link: one step of a chain from source weights to a file, with its hash."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtime.bundle.manifest import file_sha256
from runtime.files import printable_line

MATCHES, DIFFERS, NOT_HERE, RECORDED = "matches", "DIFFERS", "not here", "recorded"


@dataclass(frozen=True)
class Link:
    """One link of a chain.

    Attributes:
        what: such as ``source weights``.
        name: a file, or what is known of it.
        sha256: as recorded.
        state: ``MATCHES`` after a look at the file, ``DIFFERS``, ``NOT_HERE``, or ``RECORDED`` of
            what is never kept.
        note: where it was found, or what differs.
    """

    what: str
    name: str
    sha256: str
    state: str
    note: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.sha256, str):
            raise TypeError(f"{self.sha256!r} is no hash")

    def line(self) -> str:
        """For people: names come from files, and nothing in them acts on the terminal."""
        text = f"{self.what:<16} {self.state:<9} {self.sha256[:12]}  {self.name}"
        return printable_line(f"{text} ({self.note})" if self.note else text)


def file_link(what: str, name: str, expected: str, path: Path | None) -> Link:
    """The link to a file, after a look at it."""
    if path is None or not path.is_file():
        return Link(what, name, expected, NOT_HERE)
    return compare_hash(what, name, expected=expected, found=file_sha256(path), where=str(path))


def compare_hash(what: str, name: str, *, expected: str, found: str, where: str) -> Link:
    """The link to something whose hash is known."""
    if found == expected:
        return Link(what, name, sha256=expected, state=MATCHES, note=where if where != name else "")
    return Link(what, name, sha256=expected, state=DIFFERS, note=f"{where} is {found[:12]}")
