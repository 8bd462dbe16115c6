"""What a protocol measured, beside what was published."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.protocol.file import Protocol

_NONE = "–"


def protocol_table(protocol: Protocol, before: dict[str, Any], after: dict[str, Any]) -> str:
    """Rows of classes and means in per cent: source model, adapted model, published.

    Args:
        protocol: what was measured.
        before: record of the source model's evaluation, with IoU in [0, 1] by class; None for a
            class that never occurs.
        after: the same of the adapted model.
    """
    published = protocol.published
    lines = [f"{'class':<22}{'source':>8}{'ours':>8}{'published':>11}"]
    for name, iou in after["iou"].items():
        lines.append(_row(name, before["iou"][name], iou, published.iou.get(name)))
    lines.append(_row("mIoU", before["miou"], after["miou"], published.miou))
    for mean in protocol.means:
        source, ours = (mean_iou(record["iou"], mean.without) for record in (before, after))
        lines.append(_row(mean.name, source, ours, mean.published))
    of_source = {"mIoU": published.source_miou}
    of_source |= {mean.name: mean.published_source for mean in protocol.means}
    known = [f"{name} {value:.1f}" for name, value in of_source.items() if value is not None]
    if known:
        lines.append(f"published source model: {'; '.join(known)}")
    return "\n".join(lines)


def mean_iou(iou: dict[str, float | None], without: tuple[str, ...]) -> float | None:
    """Mean over the classes that occur, but for some; None for none."""
    kept = [value for name, value in iou.items() if value is not None and name not in without]
    return statistics.mean(kept) if kept else None


def _row(name: str, before: float | None, after: float | None, published: float | None) -> str:
    cells = [_NONE if value is None else f"{100 * value:.1f}" for value in (before, after)]
    cells.append(_NONE if published is None else f"{published:.1f}")
    return f"{name:<22}{cells[0]:>8}{cells[1]:>8}{cells[2]:>11}"
