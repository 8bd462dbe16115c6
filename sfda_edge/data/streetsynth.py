"""StreetSynth: the packaged frames, or a folder that ``sfda-edge synth`` rendered."""

from __future__ import annotations

from pathlib import Path

from runtime.packaged import CLIP, CLIP_DIR
from sfda_edge.data.folder import open_folder
from sfda_edge.data.images import ImageSet
from sfda_edge.data.video import open_video
from sfda_edge.errors import DataError
from sfda_edge.labels.label_spaces import LABEL_SPACES
from sfda_edge.packaged import SOURCE_DIR, TARGET_DIR

PARTS = ("source", "target", "clip")


def open_streetsynth(where: str) -> ImageSet:
    """The packaged ``source`` (labelled), ``target`` or ``clip`` (labelled video), or a folder.

    Raises:
        DataError: it is none of them.
    """
    if where == "clip":
        return open_video(CLIP, CLIP_DIR / "labels", LABEL_SPACES["camvid"])
    folder = {"source": SOURCE_DIR, "target": TARGET_DIR}.get(where, Path(where))
    if not (folder / "images").is_dir():
        raise DataError(
            f"streetsynth:{where}: expected one of {', '.join(PARTS)}, "
            "or a folder that sfda-edge synth made"
        )
    labels_dir = folder / "labels"
    return open_folder(
        folder / "images", labels_dir if labels_dir.is_dir() else None, LABEL_SPACES["camvid"]
    )
