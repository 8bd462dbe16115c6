"""A video file as a set of images, spread evenly over its length."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from runtime.bundle.labels import LabelSpace
from runtime.errors import SourceError
from runtime.images import ImageError, list_images, read_label_map
from runtime.sources.video_file import video_frames
from sfda_edge.data.images import ImageSet, Sample
from sfda_edge.errors import DataError

logger = logging.getLogger(__name__)
# Neighbouring frames say nearly the same; so many are kept, and of 4K fewer, that they fit.
MAX_UNLABELLED_FRAMES = 200
_MOST_BYTES = 1_300_000_000
_WINDOW = 8  # frames that readers who take turns may lag behind one another


def open_video(
    path: Path, labels_dir: Path | None = None, label_space: LabelSpace | None = None
) -> ImageSet:
    """Every frame of a video when it is labelled, else at most 200 of them, in memory.

    Labelled frames are decoded when they are read, which is cheap in their order alone.

    Args:
        path: the video.
        labels_dir: one index image a frame, in the frames' order.
        label_space: what the labels mean.

    Raises:
        DataError: the file is missing or holds no frame, or there is not one label map a frame.
    """
    try:
        readers = _spread(path) if labels_dir is None else _labelled(path, labels_dir)
    except (ImageError, SourceError) as error:
        raise DataError(str(error)) from None
    samples = tuple(
        Sample(f"{path.stem}_{index:05d}", *reader) for index, reader in enumerate(readers)
    )
    return ImageSet(str(path), samples, label_space)


def _labelled(path: Path, labels_dir: Path) -> list[tuple[partial[np.ndarray], ...]]:
    """A reader of each frame and one of its labels; frames are decoded when they are read."""
    labels = list_images(labels_dir)
    num_frames = sum(1 for _ in video_frames(path))  # containers do not know it
    if len(labels) != num_frames:
        raise DataError(f"{path} has {num_frames} frames but {labels_dir} {len(labels)} label maps")
    frames = _FramesInOrder(path)
    return [
        (partial(frames.frame, index), partial(read_label_map, label))
        for index, label in enumerate(labels)
    ]


class _FramesInOrder:
    """A video's frames by number, as cheap as decoding it once where they are asked in order."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._frames: Iterator[np.ndarray] = iter(())
        self._latest: dict[int, np.ndarray] = {}
        self._next = 0

    def frame(self, index: int) -> np.ndarray:
        """Decode on to a frame; from the beginning where it has long gone by."""
        with self._lock:
            if index not in self._latest:
                if index < self._next or self._next == 0:
                    self._frames, self._latest, self._next = video_frames(self._path), {}, 0
                while self._next <= index:
                    self._latest[self._next] = self._decoded(index)
                    self._latest.pop(self._next - _WINDOW, None)
                    self._next += 1
            return self._latest[index]

    def _decoded(self, index: int) -> np.ndarray:
        try:
            return next(self._frames)
        except (StopIteration, SourceError) as error:
            reason = str(error) or "it ends before"
            self._next = 0
            raise ImageError(f"{self._path}: frame {index} cannot be read: {reason}") from None


def _spread(path: Path) -> list[tuple[partial[np.ndarray]]]:
    """As many as may be kept: whenever there are more, every other frame goes."""
    kept: list[np.ndarray] = []
    index, step = 0, 1
    for index, frame in enumerate(video_frames(path)):
        if index % step:
            continue
        kept.append(frame)
        if len(kept) > min(MAX_UNLABELLED_FRAMES, max(16, _MOST_BYTES // frame.nbytes)):
            kept, step = kept[::2], step * 2
    if step > 1:
        logger.info(
            "%s: one of %d frames is used, %d of %d; more would say little or not fit into memory",
            *(path, step, len(kept), index + 1),
        )
    return [(partial(_held, frame),) for frame in kept]


def _held(frame: np.ndarray) -> np.ndarray:
    return frame
