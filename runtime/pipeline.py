"""Pipeline: reader thread → buffer → inference thread → buffer → sinks in the caller's thread."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Sequence

import numpy as np

from runtime.arguments import BUFFER_POLICIES
from runtime.backends import Backend
from runtime.buffer import Buffer
from runtime.bundle.manifest import LABEL_MAP
from runtime.errors import BackendUnavailable, SourceError, StreamError
from runtime.frames import Frame, Segmentation
from runtime.images import resize_image
from runtime.loss import LossPolicy
from runtime.sinks import Sink
from runtime.sources.base import Source
from runtime.stats import Snapshot, StreamStats

# Decoded ahead of the model, and waiting behind it: enough to even out jitter.
FILE_BUFFER, RESULT_BUFFER = 4, 2
# Frames of a live source that wait when every one is wanted: two seconds, in 4K the 10 that fit.
LIVE_BUFFER, LIVE_BUFFER_BYTES = 64, 256 << 20
_POLL_S = 0.1
_JOIN_S = _STOP_S = 1.5
WARM_UP_RUNS = 3


class Pipeline:
    """Segments a source until it ends, ``max_frames`` are done, or ``stop`` is set.

    Stages that are timed: ``read`` (wait for the source and decode), ``queue`` (wait for the
    model), ``resize`` (convert to RGB and resize), ``infer``, ``output`` (wait for the sinks and
    write) and ``age`` (from capture until the sinks are done).

    Args:
        source: gives frames.
        backend: runs the model.
        input_hw: of the model.
        max_frames: the end, after so many results.
        stop: ends the stream when it is set.
        loss: what comes out while a live source gives no frame; None for nothing.
        buffer_policy: which frames of a live source the model gets: the ``newest``; ``every`` one,
            while at most 64 wait, in 256 MiB; or ``every-with-deadline``, without those that are
            late before the model begins. A file waits for the model, whatever the policy.
        deadline_ms: results that are done later than this after capture are counted.
        trace: takes every stage of every frame, as ``TraceFile.span`` does; None for no trace.

    Raises:
        StreamError: the policy is unknown, or needs a deadline.

    Attributes:
        stats: times and counts so far.
        frames_read, frames_dropped: so far.
    """

    def __init__(
        self,
        source: Source,
        backend: Backend,
        input_hw: tuple[int, int],
        *,
        max_frames: int | None = None,
        stop: threading.Event | None = None,
        loss: LossPolicy | None = None,
        buffer_policy: str = "newest",
        deadline_ms: float | None = None,
        trace: Callable[..., None] | None = None,
    ) -> None:
        if buffer_policy not in BUFFER_POLICIES:
            raise StreamError(f"buffer policy is one of {', '.join(BUFFER_POLICIES)}")
        if buffer_policy == "every-with-deadline" and deadline_ms is None:
            raise StreamError(f"--buffer {buffer_policy} needs --deadline-ms")
        self._source, self._backend = source, backend
        self._input_hw, self._max_frames, self._loss = input_hw, max_frames, loss
        self._trace = trace
        skips = source.live and buffer_policy == "every-with-deadline"
        self._latest_start_ms = deadline_ms if skips else None
        self._frames = _frame_buffer(source.live, buffer_policy)
        self._results: Buffer[Segmentation] = Buffer(RESULT_BUFFER, drop_oldest=False)
        self._stop = stop or threading.Event()
        self._ended = threading.Event()  # this pipeline only; others may share the other event
        self.stats = StreamStats(deadline_ms=deadline_ms)
        self.frames_read = self._lost_frames = 0

    @property
    def frames_dropped(self) -> int:
        """Frames that the source gave and that did not come out: too late, or after the end."""
        return self._frames.dropped + self._results.dropped + self._lost_frames

    def snapshot(self) -> Snapshot:
        """The figures since the start."""
        return self.stats.snapshot(self.frames_read, self.frames_dropped)

    def report(self) -> Snapshot:
        """The same with the rate since the last report."""
        return self.stats.report(self.frames_read, self.frames_dropped)

    def run(self, sinks: Sequence[Sink] = (), tick: Callable[[], None] = lambda: None) -> None:
        """Write every result to the sinks until the end.

        Args:
            sinks: take each result, in this order.
            tick: is called after every frame and at least every 0.1 s.

        Raises:
            StreamError: the source, the model or a sink failed. What was done stays done.
        """
        with contextlib.closing(self.results(tick)) as results:
            for result in results:
                for sink in sinks:
                    start_ns = time.monotonic_ns()
                    sink.write(result)
                    self._stage(type(sink).__name__, result.frame, start_ns)

    def results(
        self, tick: Callable[[], None] = lambda: None
    ) -> Generator[Segmentation, None, None]:
        """Every result until the end; closing the generator ends the pipeline.

        Raises:
            StreamError: the source or the model failed.
        """
        self._warm_up()
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
            self._ended.set()
            self._source.interrupt()
            self._frames.discard()
            self._results.discard()
            for thread in threads:
                # A camera that hangs in the driver is left to the process's end.
                thread.join(_JOIN_S)

    def _warm_up(self) -> None:
        """The first runs of a model allocate, and are slow.

        Raises:
            BackendUnavailable: it fails.
        """
        blank = np.zeros((*self._input_hw, 3), np.uint8)
        try:
            for _ in range(WARM_UP_RUNS):
                self._backend.outputs(blank)
        except StreamError:
            raise
        except Exception as error:  # of a library; they have no common base
            raise self._failed_model(error) from None

    def _failed_model(self, error: Exception) -> BackendUnavailable:
        reason = str(error).partition("\n")[0]
        return BackendUnavailable(f"{self._backend.name} fails: {reason}")

    def _read(self) -> None:
        """Reader thread: source → frames."""
        try:
            limit = None if self._source.live else self._max_frames
            while not self._stopping and (limit is None or self.frames_read < limit):
                start_ns = time.monotonic_ns()
                frame = self._source.read()
                if frame is None:
                    break
                self.frames_read += 1
                if not self._frames.put((frame, self._stage("read", frame, start_ns))):
                    break
            self._frames.close()
        except StreamError as error:  # handed to the caller's thread
            self._frames.close(error)
        except Exception as error:  # of a library; they have no common base
            self._frames.close(SourceError(f"{self._source.name} fails: {error}"))

    def _infer(self) -> None:
        """Inference thread: frames → results."""
        try:
            while (item := self._frames.get()) is not None:
                if self._is_late(item[0]):
                    self._lost_frames += 1
                elif not self._results.put(self._segment(*item)):
                    break
            self._results.close()
        except StreamError as error:  # handed to the caller's thread
            self._results.close(error)
        except Exception as error:  # of a library; they have no common base
            self._results.close(self._failed_model(error))

    @property
    def _stopping(self) -> bool:
        return self._stop.is_set() or self._ended.is_set()

    def _is_late(self, frame: Frame) -> bool:
        return self._latest_start_ms is not None and frame.age_ms > self._latest_start_ms

    def _segment(self, frame: Frame, read_ms: float) -> Segmentation:
        timing = {"read": read_ms, "queue": self._stage("queue", frame, frame.captured_ns)}
        try:
            start_ns = time.monotonic_ns()
            image = self._resized(frame)
            timing["resize"] = self._stage("resize", frame, start_ns)
            start_ns = time.monotonic_ns()
            outputs = self._backend.outputs(image)
            timing["infer"] = self._stage("infer", frame, start_ns)
        except BaseException:
            self._lost_frames += 1
            raise
        return Segmentation(
            frame=frame,
            label_map=outputs[LABEL_MAP],
            timing=timing,
            confidence=outputs.get("confidence"),
            health=outputs.get("health"),
            state=frame.state,
        )

    def _resized(self, frame: Frame) -> np.ndarray:
        """At the model's size; a live source's frame is converted only here.

        Raises:
            SourceError: it cannot be.
        """
        try:
            return resize_image(frame.image, self._input_hw)
        except Exception as error:  # of a decoder; they have no common base
            raise SourceError(
                f"{self._source.name}: frame {frame.index} cannot be converted: {error}"
            ) from None

    def _delivered(self, tick: Callable[[], None]) -> Generator[Segmentation, None, None]:
        """The caller's thread: results as they come, timed until the caller asks for the next."""
        count, last, stopped_s = 0, None, None
        while self._max_frames is None or count < self._max_frames:
            tick()
            if self._stop.is_set():
                stopped_s = stopped_s or time.monotonic()
                self._let_out()
                if time.monotonic() - stopped_s > _STOP_S:
                    return  # the model hangs, or is too slow to wait for
            try:
                result = self._results.get(_POLL_S)
            except TimeoutError:
                if (repeated := self._repeated(last)) is not None:
                    yield repeated
                continue
            if result is None:
                return
            last = result
            start_ns = time.monotonic_ns()
            try:
                yield result
            finally:  # segmented, whatever becomes of it
                output_ms = self._stage("output", result.frame, start_ns)
                stages = {"output": output_ms, "age": result.frame.age_ms}
                self.stats.add({**result.timing, **stages})
            count += 1

    def _stage(self, stage: str, frame: Frame, start_ns: int) -> float:
        """Milliseconds since the start of a stage that ends now; it is traced."""
        end_ns = time.monotonic_ns()
        if self._trace is not None:
            self._trace(stage, frame=frame.index, start_ns=start_ns, end_ns=end_ns)
        return (end_ns - start_ns) * 1e-6

    def _let_out(self) -> None:
        """After a stop: what is under way still comes out, of a live source not what waits."""
        if self._source.live:
            self._frames.discard()
        else:
            self._frames.close()

    def _repeated(self, last: Segmentation | None) -> Segmentation | None:
        """What stands for a frame that does not come, where that is wanted."""
        if self._loss is None or self._stopping:
            return None
        found = self._loss.result(self._source, last)
        if found is not None:
            self.stats.repeated += 1
        return found


def _frame_buffer(live: bool, policy: str) -> Buffer[tuple[Frame, float]]:
    """What waits for the model: of a file a few frames, of a live source what the policy says."""
    if not live:
        return Buffer(FILE_BUFFER, drop_oldest=False)
    if policy == "newest":
        return Buffer(1, drop_oldest=True)
    least = LIVE_BUFFER_BYTES // LIVE_BUFFER
    return Buffer(LIVE_BUFFER_BYTES, drop_oldest=True, size=lambda item: max(least, item[0].nbytes))
