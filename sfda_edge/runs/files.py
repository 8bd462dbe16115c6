"""Write files whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from sfda_edge.errors import RunError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a temporary path beside ``path``, then put the result in its place.

    Raises:
        RunError: the folder cannot be written or the disk is full; what ``path`` held is intact.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.chmod(0o644)  # safetensors makes private files, whatever the user's umask
        temporary.replace(path)
    except (OSError, SafetensorError) as error:  # the latter, too, when a disk is full
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise RunError(f"cannot write {path}: {reason}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))
