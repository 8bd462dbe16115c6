"""Read regular files only, lock what is written, and show names of any origin safely."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where two writers of one place are the user's to avoid
    fcntl = None  # type: ignore[assignment]


def require_regular(path: Path) -> None:
    """Reject what is not a regular file: reading a FIFO or a device may block forever.

    Raises:
        FileNotFoundError: there is nothing.
        IsADirectoryError: it is a folder.
        OSError: it is something else, or its folder cannot be read.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(mode):
        kinds = {stat.S_ISFIFO: "a FIFO", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device"}
        kind = next((name for test, name in kinds.items() if test(mode)), "no regular file")
        raise OSError(errno.EINVAL, f"it is {kind}; a regular file is needed", str(path))


def read_bytes(path: Path) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: as ``require_regular``, or the file cannot be read.
    """
    require_regular(path)
    return path.read_bytes()


def read_text(path: Path) -> str:
    """The content of a regular file in UTF-8.

    Raises:
        OSError: as ``require_regular``, or the file cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path).decode("utf-8")


def printable(text: str) -> str:
    """Text of any origin with control characters as escapes, so that a terminal shows it only.

    Line breaks stay where the next line is indented, as those of our own messages are; others, and
    bytes of file names that are not UTF-8, become escapes.
    """
    return "\n  ".join(map(printable_line, text.split("\n  ")))


def printable_line(text: str) -> str:
    """The same where no line break is ours."""
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


class Locked(Exception):  # noqa: N818 - a state, which the caller turns into an error
    """Another process holds a lock."""


@contextlib.contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold a lock file, which is removed afterwards; the system releases it even after a kill.

    Raises:
        Locked: another process holds it.
        OSError: the file cannot be made, or is a link.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        try:
            _lock(handle, path)
            # Its last holder may have removed it between the two calls.
            if path.exists() and os.fstat(handle).st_ino == path.stat().st_ino:
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return
        finally:
            os.close(handle)


def _lock(handle: int, path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Locked(str(path)) from None


@contextlib.contextmanager
def whole_or_not_at_all(path: Path) -> Iterator[Path]:
    """A new file beside ``path``, which takes its place at the end of a ``with`` without an error.

    Raises:
        OSError: the folder cannot be written; what ``path`` held is intact.
    """
    temporary = create_temporary(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def create_temporary(path: Path) -> Path:
    """An empty file ``.NAME.part`` beside ``path``, newly made: never an existing file or link.

    Raises:
        OSError: the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    os.close(os.open(temporary, flags, 0o644))
    return temporary
