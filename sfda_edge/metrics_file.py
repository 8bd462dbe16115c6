"""metrics.jsonl: one line a step; a resumed run goes on where its checkpoint was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TextIO

from sfda_edge.errors import RunError
from sfda_edge.processes import rank

METRICS_FILE = "metrics.jsonl"


def open_metrics(out_dir: Path, steps_done: int) -> TextIO:
    """Open for appending; lines of steps that will be done again are cut off.

    Of several processes the first one writes.

    Raises:
        RunError: the file cannot be written.
    """
    if rank() != 0:
        return Path(os.devnull).open("w", encoding="utf-8")
    path = out_dir / METRICS_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines(True) if path.exists() else []
        path.write_text("".join(lines[:steps_done]), encoding="utf-8")
        return path.open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from None


def read_metrics(out_dir: Path) -> list[dict[str, Any]]:
    """The lines of a run, oldest first."""
    lines = (out_dir / METRICS_FILE).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
