"""The picture of a data set that was checked: some images beside their labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sfda_edge.data.check import SplitCheck
from sfda_edge.report.contact_sheet import contact_sheet, save_picture
from sfda_edge.report.evaluation import make_folder


def write_data_picture(path: Path, check: SplitCheck) -> None:
    """Write rows of image | labels | both, as JPEG.

    Raises:
        RunError: the folder cannot be made.
    """
    space = check.found.dataset.label_space
    colours, rows = space.colour_table(), []
    for example in check.examples:
        row = [example.image]
        if example.label_map is not None:
            labels = colours[example.label_map]
            both = (example.image.astype(np.uint16) + labels) // 2
            row += [labels, both.astype(np.uint8)]
        rows.append(row)
    titles = ["image", "labels", "both"][: len(rows[0])]
    make_folder(path.parent)
    save_picture(path, contact_sheet(rows, titles, space, row_height=150))
