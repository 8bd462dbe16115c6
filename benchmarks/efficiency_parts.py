"""What ``benchmarks.efficiency`` compares a stream with: a plain loop, a pace, no model at all."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path

import numpy as np

from runtime.backends import Backend
from runtime.backends.ort_session import open_session
from runtime.bundle.manifest import LABEL_MAP, Manifest
from runtime.errors import SourceError
from runtime.frames import LazyImage
from runtime.packaged import CLIP
from runtime.sources.av_source import AvSource, load_av
from runtime.sources.containers import FILES
from runtime.sources.video_file import video_frames


def write_video(path: Path, size_hw: tuple[int, int], fps: int, *, num_frames: int) -> None:
    """The packaged clip, enlarged and repeated, as H.264 with B-frames as cameras' files have."""
    import cv2

    av = load_av()
    height, width = size_hw
    images = [
        cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
        for image in video_frames(CLIP)
    ]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "fast", "crf": "23"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(images[index % len(images)], "rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def count_decoded(video: Path, convert: bool) -> int:
    """Decode a video; number of frames.

    Args:
        video: to read.
        convert: to RGB as well.
    """
    with AvSource(str(video), str(video), FILES, live=False) as source:
        # The decoder's own frames: ``read`` of a file converts each one.
        frames = iter(source.read, None) if convert else source._frames
        return sum(1 for _ in frames)


class PacedSource(AvSource):
    """A file that is read as a live source, at a rate."""

    def __init__(self, video: Path, rate: float) -> None:
        super().__init__(str(video), str(video), FILES, live=True)
        self._period_s, self._next_s = 1 / rate, time.monotonic()
        self.promised = None  # of a file; it ends early here, without what its decoder holds back

    def _next_image(self) -> np.ndarray | LazyImage | None:
        time.sleep(max(0.0, self._next_s - time.monotonic()))
        captured_ns = time.monotonic_ns()
        self._next_s += self._period_s
        try:
            image = super()._next_image()
        except SourceError:  # the end, which a live source has not
            return None
        self._captured_ns = captured_ns  # the file's own times are of another rate
        return image


class SpinningThreads(Backend):
    """The graph in a session whose idle threads wait in a loop, as ONNX Runtime's default is."""

    name, library, provider, precision = "spinning", "ONNX Runtime", "CPU", "fp32"

    def __init__(self, model: Path, manifest: Manifest, num_threads: int) -> None:
        self._session = open_session(model, num_threads)
        self._entry = self._session.get_inputs()[0].name
        self._names = list(manifest.outputs)

    def outputs(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """(H, W, 3) uint8 RGB at the input size → all outputs by name."""
        found = self._session.run(self._names, {self._entry: image[None]})
        return {name: one[0] for name, one in zip(self._names, found, strict=True)}


class NoModel(Backend):
    """Answers with the same label map each time."""

    name, library, provider, precision = "none", "none", "none", "fp32"

    def __init__(self, manifest: Manifest) -> None:
        self._outputs = {LABEL_MAP: np.zeros(manifest.input_hw, np.uint8)}

    def outputs(self, _image: np.ndarray) -> dict[str, np.ndarray]:
        """The same for every image."""
        return self._outputs
