"""A confusion matrix as a picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from sfda_edge.evaluation import Evaluation
from sfda_edge.report.axes import new_axes, picture_of
from sfda_edge.runs.files import write_atomically


def save_confusion_picture(evaluation: Evaluation, path: Path) -> None:
    """Draw each label's row as shares of its pixels, in percent."""
    names = evaluation.label_space.names
    counts = evaluation.confusion.counts
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = max(4.4, 2.2 + 0.48 * len(names))  # the title's width at least
    with new_axes(side, side) as axes:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("prediction")
        axes.set_ylabel("label")
        axes.set_title(f"share of each label's pixels, %\nmIoU {100 * evaluation.scores.miou:.1f}")
        for row, column in zip(*np.nonzero(shares >= 0.5), strict=True):
            share = shares[row, column]
            colour = "white" if share > 55 else "black"
            axes.text(
                column, row, f"{share:.0f}", ha="center", va="center", color=colour, fontsize=8
            )
        Image.fromarray(picture_of(axes)).save(content := io.BytesIO(), "png")
    write_atomically(path, lambda part: part.write_bytes(content.getvalue()))
