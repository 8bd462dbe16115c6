"""StreamRun: one source from its frames to its outputs. Several run side by side in a process."""

from __future__ import annotations

import argparse
import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from runtime.backends import Backend
from runtime.bundle.manifest import Manifest
from runtime.errors import StreamError
from runtime.hardware import ThrottlingWatch
from runtime.loss import LossPolicy
from runtime.pipeline import Pipeline
from runtime.sinks import Sink, ViewerLeft
from runtime.sinks.replay_check import ReplayCheck
from runtime.sources.base import Source
from runtime.sources.settings import SourceSettings
from runtime.sources.watchdog import State, WatchdogLimits
from runtime.trace import TraceFile

logger = logging.getLogger("runtime.stream")
REPORT_EVERY_S = 5.0
_LOOK_S = 0.1


class StreamRun:
    """A source with its pipeline and its sinks.

    Args:
        args: of this source.
        source: closed by whoever opened it.
        backend: the model, which other runs may share.
        manifest: of the bundle.
        stop: ends all runs of the process.
        trace: of all runs; None for none.

    Attributes:
        name: of the source.
        label_space: names and colours of its labels.
        pipeline: with its figures.
        sinks: to be added before it runs.
        stop: ends all runs of the process.
        ended: whether it has.
        failure: why it ended early; None if it did not.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        source: Source,
        *,
        backend: Backend,
        manifest: Manifest,
        stop: threading.Event,
        trace: TraceFile | None,
    ) -> None:
        if args.name:
            source.rename(args.name)
        self.name = source.name
        self.args, self.source, self.label_space = args, source, manifest.label_space
        self.sinks: list[Sink] = []
        self.stop = stop
        self.ended = False
        self.failure: Exception | None = None
        self.pipeline = Pipeline(
            source,
            backend,
            manifest.input_hw,
            max_frames=args.frames,
            stop=stop,
            loss=LossPolicy(args.on_loss, manifest.label_space.ignore_index),
            buffer_policy=args.buffer,
            deadline_ms=args.deadline_ms,
            trace=None if trace is None else partial(trace.span, self.name),
        )
        logger.info("%s: %s frame", source.name, args.buffer if source.live else "every")

    def run(self, tick: Callable[[], None] = lambda: None) -> None:
        """Write every result to the sinks until the source ends.

        Raises:
            StreamError: the source, the model or a sink failed.
        """
        try:
            self.pipeline.run(self.sinks, tick)
        except ViewerLeft:
            logger.info("%s ends: its window or pipe was closed", self.name)
        finally:
            self.ended = True

    def run_beside_others(self) -> None:
        """The same for a thread: a failure is logged and kept, the other runs go on."""
        try:
            self.run()
            logger.info("%s: ended", self.name)
        except Exception as error:  # a library's own, too: it must not end with exit code 0
            self._failed(error)
        self._close()

    def _failed(self, error: Exception) -> None:
        """Log a failure, and keep the first."""
        known = isinstance(error, StreamError | OSError)
        found = error if known else StreamError(f"{type(error).__name__}: {error}")
        logger.error("%s ended: %s", self.name, found, exc_info=not known)
        self.failure = self.failure or found

    def _close(self) -> None:
        """Free the camera and finish the files: the others may go on for weeks.

        Of the sinks, the one of the service is closed so that the others' frames feed the watchdog.
        """
        for close in (self.source.close, *(sink.close for sink in self.sinks)):
            try:
                close()
            except Exception as error:  # a library's own, too
                self._failed(error)

    def summary(self, with_name: bool) -> str:
        """Figures of the whole run, for people."""
        lines = [self.name] if with_name else []
        lines.append(self.pipeline.snapshot().table())
        lines += [sink.line() for sink in self.sinks if isinstance(sink, ReplayCheck)]
        return "\n".join(lines)

    @property
    def differs(self) -> bool:
        """Whether a replay differs from its recording."""
        return any(isinstance(sink, ReplayCheck) and sink.differing for sink in self.sinks)


def source_settings(args: argparse.Namespace, *, beside_others: bool) -> SourceSettings:
    """What the arguments ask of a source; a live one beside others may open later."""
    return SourceSettings(
        size_hw=args.size,
        fps=args.fps,
        pixel_format=args.format,
        limits=WatchdogLimits(stale_s=args.stale_after, lost_s=args.lost_after),
        reconnect=args.reconnect,
        loop=args.loop,
        late_name=args.name if beside_others else None,
    )


def run_all(runs: Sequence[StreamRun]) -> None:
    """Run until every source has ended; the figures are logged on the way.

    Raises:
        StreamError: the only source failed, or one of several did; the others ended first.
    """
    report = _reporter(runs)
    if len(runs) == 1:
        runs[0].run(report)
        return
    threads = [
        threading.Thread(target=run.run_beside_others, name=run.name, daemon=True) for run in runs
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(_LOOK_S)
        report()
    for run in runs:
        if run.failure is not None:
            raise run.failure


def _reporter(runs: Sequence[StreamRun]) -> Callable[[], None]:
    """Logs the figures every few seconds."""
    next_s = time.monotonic() + REPORT_EVERY_S
    throttling = ThrottlingWatch(logger.warning)

    def report() -> None:
        nonlocal next_s
        if time.monotonic() < next_s:
            return
        next_s = time.monotonic() + REPORT_EVERY_S  # of a process that was stopped, too
        throttling.look()
        for run in (each for each in runs if not each.ended):
            name = f"{run.name}: " if len(runs) > 1 else ""
            state = "" if run.source.state is State.LIVE else f"{run.source.state}  "
            logger.info("%s%s%s", name, state, run.pipeline.report().line())

    return report
