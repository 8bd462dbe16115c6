"""metrics.jsonl: a line a step; that of step 0 is before training.

A resumed run continues where its checkpoint was.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, TextIO

from runtime.files import read_bytes
from sfda_edge.errors import RunError
from sfda_edge.runs.distributed import rank

METRICS_FILE = "metrics.jsonl"


def open_metrics(out_dir: Path, steps_done: int) -> TextIO:
    """Open for appending; lines of steps that will be done again are removed.

    Of several processes the first one writes.

    Args:
        out_dir: the run's folder.
        steps_done: 0 starts with an empty file.

    Raises:
        RunError: the file cannot be written.
    """
    if rank() != 0:
        return Path(os.devnull).open("w", encoding="utf-8")
    path = out_dir / METRICS_FILE
    try:
        kept = read_metrics(out_dir) if steps_done > 0 and path.exists() else []
        kept = [line for line in kept if line["step"] <= steps_done]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        path.write_text(text, encoding="utf-8")
        return path.open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from None


def read_metrics(out_dir: Path) -> list[dict[str, Any]]:
    """The lines of a run, oldest first; a line that a kill has cut short is left out.

    Raises:
        OSError: the file cannot be read.
    """
    lines = read_bytes(out_dir / METRICS_FILE).decode("utf-8", errors="replace").splitlines()
    return [parsed for line in lines if (parsed := _parsed(line)) is not None]


def _parsed(line: str) -> dict[str, Any] | None:
    """A line's content; None where it is not one of ours."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = content.get("step") if isinstance(content, dict) else None
    if not isinstance(step, int | float) or isinstance(step, bool) or not math.isfinite(step):
        return None
    return content
