"""Loops from a video file to a video file with coloured labels, around the same model call.

Each is written as its library's own documentation does: they differ in reading, resizing,
colouring and saving alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import OURS
from runtime.backends import Backend
from runtime.bundle.manifest import Manifest
from runtime.errors import SourceError
from runtime.overlay import Overlay
from runtime.pipeline import Pipeline
from runtime.sinks.video import VideoSink
from runtime.sources.grammar import open_source

ALPHA = 0.5


@dataclass(frozen=True, eq=False)
class VideoTask:
    """What every loop does.

    Attributes:
        video: to read.
        backend: the model; it takes (H, W, 3) uint8 RGB at ``manifest``'s input size.
        manifest: of its bundle.
        out: where the coloured video goes; None if frames are only read and segmented.
    """

    video: Path
    backend: Backend
    manifest: Manifest
    out: Path | None

    def labels(self, frame_bgr: np.ndarray) -> np.ndarray:
        """Label map at the input size of an OpenCV frame."""
        import cv2

        height, width = self.manifest.input_hw
        image = cv2.cvtColor(cv2.resize(frame_bgr, (width, height)), cv2.COLOR_BGR2RGB)
        return self.backend.infer(image)

    def enlarged(self, labels: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """The label map at the frame's size."""
        import cv2

        size = (frame.shape[1], frame.shape[0])
        return np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST))


Loop = Callable[[VideoTask], int]


def frames_per_second(loop: Loop, task: VideoTask) -> float:
    """Rate of a loop over the whole video, opening and closing the files included."""
    start_s = time.perf_counter()
    count = loop(task)
    return count / (time.perf_counter() - start_s)


def ours(task: VideoTask) -> int:
    """``python -m runtime.stream VIDEO --save OUT``."""
    with open_source(str(task.video)) as source:
        pipeline = Pipeline(source, task.backend, task.manifest.input_hw)
        overlay = Overlay(task.manifest.label_space)
        sinks = [VideoSink(task.out, overlay, source.fps, live=False)] if task.out else []
        pipeline.run(sinks)
        for sink in sinks:
            sink.close()
    return pipeline.frames_read


def opencv(task: VideoTask) -> int:
    """VideoCapture, addWeighted, VideoWriter: what a tutorial shows."""
    import cv2

    table = task.manifest.label_space.colour_table()

    def drawn() -> Iterator[np.ndarray]:
        for frame in _read(task.video):
            labels = task.labels(frame)
            if task.out is not None:
                colours = table[task.enlarged(labels, frame)][..., ::-1]
                yield np.asarray(cv2.addWeighted(frame, 1 - ALPHA, colours, ALPHA, 0))
            else:
                yield frame

    return _write(task, drawn())


def supervision(task: VideoTask) -> int:
    """get_video_frames_generator, MaskAnnotator, VideoSink; one mask for each class."""
    import supervision as sv

    colours = [sv.Color(*map(int, one)) for one in task.manifest.label_space.colour_table()]
    annotator = sv.MaskAnnotator(color=sv.ColorPalette(colours), opacity=ALPHA)

    def annotated(frame: np.ndarray) -> np.ndarray:
        labels = task.labels(frame)
        if task.out is None:
            return frame
        large = task.enlarged(labels, frame)
        classes = np.unique(large)
        masks = large[None] == classes[:, None, None]
        found = sv.Detections(xyxy=sv.mask_to_xyxy(masks), mask=masks, class_id=classes.astype(int))
        return np.asarray(annotator.annotate(frame, found))

    frames = sv.get_video_frames_generator(source_path=str(task.video))
    if task.out is None:
        return sum(1 for _ in map(annotated, frames))
    count = 0
    with sv.VideoSink(str(task.out), sv.VideoInfo.from_video_path(str(task.video))) as sink:
        for frame in frames:
            sink.write_frame(annotated(frame))
            count += 1
    return count


def ultralytics(task: VideoTask) -> int:
    """LoadImagesAndVideos, Results.plot, VideoWriter, as its predictor does."""
    import torch
    from ultralytics.data.loaders import LoadImagesAndVideos
    from ultralytics.engine.results import Results

    names = dict(enumerate(task.manifest.label_space.names))

    def drawn() -> Iterator[np.ndarray]:
        for paths, frames, _ in LoadImagesAndVideos(str(task.video)):
            labels = task.labels(frames[0])
            if task.out is None:
                yield frames[0]
                continue
            mask = torch.from_numpy(task.enlarged(labels, frames[0]).astype(np.int32))
            result: Any = Results(frames[0], paths[0], names, semantic_mask=mask)
            yield np.asarray(result.plot())

    return _write(task, drawn())


LOOPS: dict[str, Loop] = {
    OURS: ours,
    "OpenCV": opencv,
    "supervision": supervision,
    "Ultralytics": ultralytics,
}


def _read(video: Path) -> Iterator[np.ndarray]:
    import cv2

    capture = cv2.VideoCapture(str(video))
    if not capture.isOpened():
        raise SourceError(f"OpenCV cannot read {video}")
    try:
        while True:
            there, frame = capture.read()
            if not there:
                return
            yield frame
    finally:
        capture.release()


def _write(task: VideoTask, frames: Iterable[np.ndarray]) -> int:
    """Save frames as mp4v, as all three do; number of frames."""
    import cv2

    writer, count = None, 0
    for frame in frames:
        if task.out is not None and writer is None:
            size = (frame.shape[1], frame.shape[0])
            writer = cv2.VideoWriter(str(task.out), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, size)
        if writer is not None:
            writer.write(frame)
        count += 1
    if writer is not None:
        writer.release()
    return count
