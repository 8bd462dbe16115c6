"""metrics.jsonl: one line a step; a resumed run goes on where its checkpoint was."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from sfda_edge.errors import RunError


def open_metrics(out_dir: Path, steps_done: int) -> TextIO:
    """Open for appending; lines of steps that will be done again are cut off.

    Raises:
        RunError: the file cannot be written.
    """
    path = out_dir / "metrics.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines(True) if path.exists() else []
        path.write_text("".join(lines[:steps_done]), encoding="utf-8")
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from None
