"""Write files whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from runtime.files import whole_or_not_at_all
from sfda_edge.errors import RunError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a new file beside ``path``, then put the result in its place.

    Raises:
        RunError: the folder cannot be written or the disk is full; what ``path`` held is intact.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_or_not_at_all(path) as unfinished:
            write(unfinished)
            unfinished.chmod(0o644)  # safetensors makes private files, whatever the user's umask
    except (OSError, SafetensorError) as error:  # the latter, too, when a disk is full
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise RunError(f"cannot write {path}: {reason}") from None


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; bytes of names that are not UTF-8 become escapes."""
    content = text.encode("utf-8", errors="backslashreplace")
    write_atomically(path, lambda part: part.write_bytes(content))
