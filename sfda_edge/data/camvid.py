"""CamVid in the 480x360, 11-class form of the SegNet release: ``images/`` and ``labels/``."""

from __future__ import annotations

from pathlib import Path

from sfda_edge.data.folder import open_folder
from sfda_edge.data.images import ImageSet
from sfda_edge.errors import DataError
from sfda_edge.labels.label_spaces import LABEL_SPACES


def open_camvid(where: str) -> ImageSet:
    """One split's folder, such as ``camvid/val``; labelled when it has a ``labels`` folder.

    Raises:
        DataError: there is no ``images`` folder.
    """
    folder = Path(where)
    if not (folder / "images").is_dir():
        raise DataError(f"camvid:{where}: expected {folder / 'images'}; give a split's folder")
    labels_dir = folder / "labels"
    return open_folder(
        folder / "images", labels_dir if labels_dir.is_dir() else None, LABEL_SPACES["camvid"]
    )
