"""A video file as a set of images, spread evenly over its length."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from runtime.bundle.labels import LabelSpace
from runtime.errors import SourceError
from runtime.images import ImageError, list_images, read_label_map
from runtime.sources.video_file import video_frames
from sfda_edge.data.images import ImageSet, Sample
from sfda_edge.errors import DataError

# Neighbouring frames say nearly the same; this many fit in memory at full HD (1.2 GB).
MAX_UNLABELLED_FRAMES = 200


def open_video(
    path: Path, labels_dir: Path | None = None, label_space: LabelSpace | None = None
) -> ImageSet:
    """Decode a video into memory: every frame when it is labelled, else at most 200 of them.

    Args:
        path: the video.
        labels_dir: one index image a frame, in the frames' order.
        label_space: what the labels mean.

    Raises:
        DataError: the file is missing or holds no frame, or there is not one label map a frame.
    """
    try:
        labels = list_images(labels_dir) if labels_dir else None
        frames = _spread(path) if labels is None else list(video_frames(path))
    except (ImageError, SourceError) as error:
        raise DataError(str(error)) from None
    if labels is not None and len(labels) != len(frames):
        raise DataError(
            f"{path} has {len(frames)} frames but {labels_dir} {len(labels)} label maps"
        )
    samples = tuple(
        Sample(
            f"{path.stem}_{index:05d}",
            partial(_held, frame),
            partial(read_label_map, labels[index]) if labels else None,
        )
        for index, frame in enumerate(frames)
    )
    return ImageSet(str(path), samples, label_space)


def _held(frame: np.ndarray) -> np.ndarray:
    return frame


def _spread(path: Path) -> list[np.ndarray]:
    """At most ``MAX_UNLABELLED_FRAMES``: whenever the list is full, every other frame goes."""
    kept: list[np.ndarray] = []
    step = 1
    for index, frame in enumerate(video_frames(path)):
        if index % step:
            continue
        kept.append(frame)
        if len(kept) > MAX_UNLABELLED_FRAMES:
            kept, step = kept[::2], step * 2
    return kept
