"""The public functions of runtime; the command line calls the same code."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np

from runtime.backends import open_backend
from runtime.bundle.labels import LabelSpace
from runtime.bundle.manifest import read_manifest, without_links
from runtime.closing import Closing
from runtime.errors import SourceError
from runtime.frames import Segmentation
from runtime.images import resize_image, resize_label_map
from runtime.loss import LossPolicy
from runtime.packaged import BUNDLE_DIR
from runtime.pipeline import Pipeline
from runtime.sources.base import Source
from runtime.sources.grammar import open_source
from runtime.sources.settings import SourceSettings
from runtime.stats import Snapshot


class LoadedBundle(Closing):
    """A bundle's model, ready to segment images; close it, or use it in a ``with``.

    Attributes:
        manifest: what the model expects and returns.
        label_space: names and colours of the labels.
    """

    def __init__(self, bundle_dir: Path, backend: str, num_threads: int) -> None:
        bundle_dir = without_links(bundle_dir)
        self.manifest = read_manifest(bundle_dir)
        self.label_space: LabelSpace = self.manifest.label_space
        self._backend = open_backend(backend, bundle_dir, self.manifest, num_threads)

    def segment(self, image: np.ndarray) -> np.ndarray:
        """Labels of an image: (H, W, 3) uint8 RGB of any size → (H, W) uint8 of the same size.

        Raises:
            SourceError: the image has another shape or type.
        """
        return resize_label_map(self.outputs(image)["label_map"], image.shape[:2])

    def outputs(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """All outputs of the model for an image, by name, at the model's own size.

        ``label_map`` (h, w) uint8; of bundles with them ``confidence`` (h, w) uint8, 255 times the
        label's probability, and ``health`` (K,) float32.

        Raises:
            SourceError: the image has another shape or type.
        """
        if not isinstance(image, np.ndarray):
            raise SourceError(
                f"expected an image as an array (H, W, 3) of uint8, found {type(image).__name__}"
            )
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise SourceError(
                f"expected an image (H, W, 3) of uint8, found {image.shape} {image.dtype}"
            )
        return self._backend.outputs(resize_image(image, self.manifest.input_hw))

    def close(self) -> None:
        """Free the model."""
        self._backend.close()


def load_bundle(
    bundle: str | Path | None = None, *, backend: str = "auto", num_threads: int = 0
) -> LoadedBundle:
    """Load a bundle's model.

    Args:
        bundle: what ``sfda-edge export`` made; None for the packaged one.
        backend: what runs the model; ``auto`` as ``runtime.backends.open_backend`` says.
        num_threads: threads of one inference; 0 lets the backend choose.

    Raises:
        StreamError: the bundle is damaged, or the backend does not start.
    """
    return LoadedBundle(Path(bundle or BUNDLE_DIR), backend, num_threads)


class Stream(Closing):
    """Results of a source, one a frame; iterate once.

    Source and model are freed when the iteration ends, or with ``close``, which any thread may
    call, or after a ``with``.

    Reading, inference and the loop's own work overlap. A live source gives its newest frame; frames
    that come while the loop is busy are dropped and counted.

    Attributes:
        label_space: names and colours of the labels.
        backend: what runs the model, and how well it answered the golden frame, in a line.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        source: Source,
        label_space: LabelSpace,
        *,
        backend: str,
        stop: threading.Event,
        stack: contextlib.ExitStack,
    ) -> None:
        self._pipeline, self._source, self._stack = pipeline, source, stack
        self._stop, self._done = stop, threading.Event()
        self._iterating: int | None = None  # the thread that does
        self.label_space, self.backend = label_space, backend
        self._results: Generator[Segmentation, None, None] | None = None

    def __iter__(self) -> Iterator[Segmentation]:
        """Every result until the source ends.

        Raises:
            StreamError: the source or the model fails.
        """
        if self._stop.is_set() or self._iterating is not None:
            return  # closed, or iterated before
        self._iterating = threading.get_ident()
        try:
            with contextlib.closing(self._pipeline.results()) as self._results:
                yield from self._results
        finally:
            try:
                self._stack.close()
            finally:
                self._done.set()

    @property
    def state(self) -> str:
        """What the source is doing: opening, live, stale, frozen, black, lost or ended."""
        return str(self._source.state)

    @property
    def figures(self) -> Snapshot:
        """Frames read, segmented and dropped, frames per second, times of each stage."""
        return self._pipeline.snapshot()

    def close(self) -> None:
        """End the iteration, if one is under way, and free source and model.

        From a signal handler it returns at once, and the iteration frees them when it goes on.
        """
        self._stop.set()
        self._source.interrupt()
        if self._results is not None:
            try:
                self._results.close()
            except ValueError:  # it waits for a result, in another thread or below us
                if self._iterating != threading.get_ident():
                    self._done.wait()
                return
        self._stack.close()


def open_stream(
    source: str | Path,
    *,
    bundle: str | Path | None = None,
    backend: str = "auto",
    num_threads: int = 0,
    max_frames: int | None = None,
    settings: SourceSettings | None = None,
    on_loss: str | None = None,
    buffer_policy: str = "newest",
    deadline_ms: float | None = None,
) -> Stream:
    """Segment a source frame by frame.

    Args:
        source: ``camera0``, an ``rtsp://`` or ``http://`` URL, a video file, a folder of images, or
            ``streetsynth``.
        bundle: what ``sfda-edge export`` made; None for the packaged one.
        backend: what runs the model; ``auto`` as ``runtime.backends.open_backend`` says.
        num_threads: threads of one inference; 0 lets the backend choose.
        max_frames: stop after so many results.
        settings: of a camera; when a live source is stale or lost, and how often it is reopened.
        on_loss: what comes while a live source gives no frame: ``hold`` repeats the last result,
            ``blank`` gives one without classes, both marked ``repeated``; ``stop`` raises; None:
            nothing comes.
        buffer_policy: ``newest``, ``every`` or ``every-with-deadline``, for a live source.
        deadline_ms: after capture; what is done later is counted.

    Raises:
        StreamError: the source does not open, the bundle is damaged, or the backend does not start.
    """
    bundle_dir = without_links(Path(bundle or BUNDLE_DIR))
    manifest = read_manifest(bundle_dir)
    with contextlib.ExitStack() as stack:
        model = stack.enter_context(open_backend(backend, bundle_dir, manifest, num_threads))
        opened = stack.enter_context(open_source(str(source), settings))
        ignore_index = manifest.label_space.ignore_index
        stop = threading.Event()
        pipeline = Pipeline(
            opened,
            model,
            manifest.input_hw,
            max_frames=max_frames,
            stop=stop,
            loss=None if on_loss is None else LossPolicy(on_loss, ignore_index),
            buffer_policy=buffer_policy,
            deadline_ms=deadline_ms,
        )
        return Stream(
            pipeline,
            opened,
            manifest.label_space,
            backend=model.line(),
            stop=stop,
            stack=stack.pop_all(),
        )
    raise AssertionError("an exit stack swallows no exception")
