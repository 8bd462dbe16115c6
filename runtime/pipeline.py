"""Pipeline: reader thread → buffer → inference thread → buffer → sinks in the caller's thread."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Sequence

import numpy as np

from runtime.backends import Backend
from runtime.buffer import Buffer
from runtime.bundle.manifest import LABEL_MAP
from runtime.frames import Frame, Segmentation
from runtime.images import resize_image
from runtime.sinks import Sink
from runtime.sources.base import Source
from runtime.stats import StreamStats

# Decoded ahead of the model, and waiting behind it: enough to even out jitter.
FILE_BUFFER, RESULT_BUFFER = 4, 2
_POLL_S = 0.2
_JOIN_S = 6.0  # longer than a network source waits for a frame
WARM_UP_RUNS = 3


def milliseconds_since(start_ns: int) -> float:
    """Time since a monotonic clock reading."""
    return (time.monotonic_ns() - start_ns) * 1e-6


class Pipeline:
    """Segments a source until it ends, ``max_frames`` are done, or ``stop`` is set.

    Stages that are timed: ``read`` (wait for the source and decode), ``queue`` (wait for the
    model), ``resize``, ``infer``, ``output`` (wait for the sinks and write) and ``age`` (from
    capture until the sinks are done).

    Attributes:
        stats: times and counts so far.
        frames_read, frames_dropped: so far.
    """

    def __init__(
        self,
        source: Source,
        backend: Backend,
        input_hw: tuple[int, int],
        sinks: Sequence[Sink] = (),
        *,
        max_frames: int | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._source, self._backend, self._sinks = source, backend, sinks
        self._input_hw, self._max_frames = input_hw, max_frames
        self._frames: Buffer[tuple[Frame, float]] = Buffer(
            1 if source.live else FILE_BUFFER, drop_oldest=source.live
        )
        self._results: Buffer[Segmentation] = Buffer(RESULT_BUFFER, drop_oldest=False)
        self._stop = stop or threading.Event()
        self.stats = StreamStats()
        self.frames_read = 0

    @property
    def frames_dropped(self) -> int:
        """Frames that the source gave and the model had no time for."""
        return self._frames.dropped

    def run(self, tick: Callable[[], None] = lambda: None) -> None:
        """Write every result to the sinks until the end.

        Args:
            tick: is called after every frame and at least every 0.2 s.

        Raises:
            StreamError: the source, the model or a sink failed. What was done stays done.
        """
        with contextlib.closing(self.results(tick)) as results:
            for result in results:
                for sink in self._sinks:
                    sink.write(result)

    def results(
        self, tick: Callable[[], None] = lambda: None
    ) -> Generator[Segmentation, None, None]:
        """Every result until the end; closing the generator ends the pipeline.

        Raises:
            StreamError: the source or the model failed.
        """
        blank = np.zeros((*self._input_hw, 3), np.uint8)
        for _ in range(WARM_UP_RUNS):
            self._backend.outputs(blank)
        self.stats.start()
        threads = [
            threading.Thread(target=self._read, name="reader", daemon=True),
            threading.Thread(target=self._infer, name="inference", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            yield from self._delivered(tick)
        finally:
            self._stop.set()
            self._frames.discard()
            self._results.discard()
            for thread in threads:
                # A camera that hangs in the driver is left to the process's end.
                thread.join(_JOIN_S)

    def _read(self) -> None:
        """Reader thread: source → frames."""
        try:
            limit = None if self._source.live else self._max_frames
            while not self._stop.is_set() and (limit is None or self.frames_read < limit):
                start_ns = time.monotonic_ns()
                frame = self._source.read()
                if frame is None:
                    break
                self.frames_read += 1
                if not self._frames.put((frame, milliseconds_since(start_ns))):
                    break
            self._frames.close()
        except BaseException as error:  # handed to the caller's thread
            self._frames.close(error)

    def _infer(self) -> None:
        """Inference thread: frames → results."""
        try:
            while (item := self._frames.get()) is not None:
                if not self._results.put(self._segment(*item)):
                    break
            self._results.close()
        except BaseException as error:  # handed to the caller's thread
            self._results.close(error)

    def _segment(self, frame: Frame, read_ms: float) -> Segmentation:
        queue_ms = milliseconds_since(frame.captured_ns)
        start_ns = time.monotonic_ns()
        image = resize_image(frame.image, self._input_hw)
        resize_ms, start_ns = milliseconds_since(start_ns), time.monotonic_ns()
        outputs = self._backend.outputs(image)
        timing = {
            "read": read_ms,
            "queue": queue_ms,
            "resize": resize_ms,
            "infer": milliseconds_since(start_ns),
        }
        return Segmentation(
            frame=frame,
            label_map=outputs[LABEL_MAP],
            timing=timing,
            confidence=outputs.get("confidence"),
            health=outputs.get("health"),
        )

    def _delivered(self, tick: Callable[[], None]) -> Generator[Segmentation, None, None]:
        """The caller's thread: results as they come, timed until the caller asks for the next."""
        count = 0
        while self._max_frames is None or count < self._max_frames:
            tick()
            if self._stop.is_set():
                self._frames.close()  # what is under way still comes out
            try:
                result = self._results.get(_POLL_S)
            except TimeoutError:
                continue
            if result is None:
                return
            start_ns = time.monotonic_ns()
            yield result
            stages = {"output": milliseconds_since(start_ns)}
            stages["age"] = milliseconds_since(result.frame.captured_ns)
            self.stats.add({**result.timing, **stages})
            count += 1
