"""A run's log for people who keep TensorBoard open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_tensorboard(folder: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Write the numbers of ``metrics.jsonl`` as scalars."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for line in lines:
            for name, value in line.items():
                if name != "step" and isinstance(value, int | float):
                    writer.add_scalar(name, value, line["step"])
