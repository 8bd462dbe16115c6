"""metrics.jsonl: a line a step, that of step 0 before anything is learnt.

A resumed run goes on where its checkpoint was.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, TextIO

from sfda_edge.errors import RunError
from sfda_edge.training.distributed import rank

METRICS_FILE = "metrics.jsonl"


def open_metrics(out_dir: Path, steps_done: int) -> TextIO:
    """Open for appending; lines of steps that will be done again are cut off.

    Of several processes the first one writes.

    Args:
        out_dir: the run's folder.
        steps_done: 0 starts afresh.

    Raises:
        RunError: the file cannot be written.
    """
    if rank() != 0:
        return Path(os.devnull).open("w", encoding="utf-8")
    path = out_dir / METRICS_FILE
    try:
        done = steps_done > 0 and path.exists()
        lines = path.read_text(encoding="utf-8").splitlines(True) if done else []
        kept = [line for line in lines if _step(line) <= steps_done]
        path.write_text("".join(kept), encoding="utf-8")
        return path.open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from None


def _step(line: str) -> float:
    """A line's step; that of a line which a kill has cut short lies beyond all."""
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return math.inf


def read_metrics(out_dir: Path) -> list[dict[str, Any]]:
    """The lines of a run, oldest first."""
    lines = (out_dir / METRICS_FILE).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
