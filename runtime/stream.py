"""python -m runtime.stream SOURCE: segment a live stream, show it, save it, measure it."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import StreamError
from runtime.output import leave, print_error, print_result, start_log, start_output
from runtime.outputs import open_sinks, require_other_files
from runtime.stream_arguments import build_parser

if TYPE_CHECKING:
    from runtime.backends import Backend
    from runtime.bundle.manifest import Manifest
    from runtime.pipeline import Pipeline
    from runtime.sinks import Sink
    from runtime.sources.base import Source
    from runtime.sources.settings import SourceSettings

logger = logging.getLogger("runtime.stream")
REPORT_EVERY_S = 5.0
OWN_BUNDLE = Path("bundle")
ADVICE = {
    "cv2": "pip install opencv-python, or opencv-python-headless where there is no display",
    "PIL": "pip install pillow",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Returns:
        the exit code: 0 done, 1 a replay differs from its recording, 2 the user has to act.
    """
    start_output()
    return run_program(build_parser().parse_args(arguments))


def run_program(args: argparse.Namespace) -> int:
    """The same with parsed arguments."""
    start_log(args.log_format)
    try:
        return stream(args)
    except (StreamError, OSError) as error:
        print_error(error)
        return 2
    except ModuleNotFoundError as error:
        if error.name not in ADVICE:
            raise
        print_error(f"{error}: {ADVICE[error.name]}")
        return 2
    except KeyboardInterrupt:
        return 130


def choose_bundle(asked: Path | None) -> Path:
    """The bundle that was asked for, else this folder's, else the packaged one; says which."""
    from runtime.packaged import BUNDLE_DIR

    if asked is not None:
        return asked
    if OWN_BUNDLE.exists():
        logger.info("bundle: ./bundle (--bundle DIR for another)")
        return OWN_BUNDLE
    logger.info(
        "bundle: the packaged StreetSynth model, as there is no ./bundle (--bundle DIR for another)"
    )
    return BUNDLE_DIR


def stream(args: argparse.Namespace) -> int:
    """Open everything, run, and print the summary, whatever ended the stream.

    Returns:
        1 when a replay differs from its recording, else 0.

    Raises:
        StreamError: something does not open, or broke on the way.
    """
    from runtime.backends import open_backend
    from runtime.bundle.manifest import read_manifest
    from runtime.sinks.replay_check import ReplayCheck
    from runtime.sinks.window import WindowClosed
    from runtime.sources.grammar import open_source

    bundle_dir = choose_bundle(args.bundle)
    require_other_files(args, bundle_dir)
    manifest = read_manifest(bundle_dir)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(_stopping_on_signals())
        # The model first: it may take a while, and a camera's frames would grow old.
        backend = stack.enter_context(
            open_backend(args.backend, bundle_dir, manifest, args.threads)
        )
        height, width = manifest.input_hw
        logger.info("%s, %dx%d", backend.line(), width, height)
        source = stack.enter_context(open_source(args.source, _source_settings(args)))
        logger.info("%s: %s frame", source.name, args.buffer if source.live else "every")
        pipeline = _pipeline(args, source, backend=backend, manifest=manifest, stop=stop)
        sinks = open_sinks(
            args,
            manifest,
            source=source,
            backend=backend,
            pipeline=pipeline,
            stack=stack,
        )
        try:
            pipeline.run(sinks, _reporter(pipeline))
        except WindowClosed:
            pass
        finally:
            _print_summary(pipeline, sinks, to_errors=args.jsonl == "-")
        return int(any(isinstance(sink, ReplayCheck) and sink.differing for sink in sinks))
    raise AssertionError("an exit stack swallows no exception")


def _print_summary(pipeline: Pipeline, sinks: Sequence[Sink], to_errors: bool) -> None:
    from runtime.sinks.replay_check import ReplayCheck

    lines = [pipeline.snapshot().table()]
    lines += [sink.line() for sink in sinks if isinstance(sink, ReplayCheck)]
    if to_errors:
        print("\n".join(lines), file=sys.stderr)
    else:
        print_result("\n".join(lines))


def _pipeline(
    args: argparse.Namespace,
    source: Source,
    *,
    backend: Backend,
    manifest: Manifest,
    stop: threading.Event,
) -> Pipeline:
    from runtime.loss import LossPolicy
    from runtime.pipeline import Pipeline

    return Pipeline(
        source,
        backend,
        manifest.input_hw,
        max_frames=args.frames,
        stop=stop,
        loss=LossPolicy(args.on_loss, manifest.label_space.ignore_index),
        buffer_policy=args.buffer,
        deadline_ms=args.deadline_ms,
    )


def _source_settings(args: argparse.Namespace) -> SourceSettings:
    from runtime.sources.settings import SourceSettings
    from runtime.sources.watchdog import WatchdogLimits

    return SourceSettings(
        size_hw=args.size,
        fps=args.fps,
        pixel_format=args.format,
        limits=WatchdogLimits(stale_s=args.stale_after, lost_s=args.lost_after),
        reconnect=args.reconnect,
    )


@contextlib.contextmanager
def _stopping_on_signals() -> Iterator[threading.Event]:
    """Ctrl-C, SIGTERM and SIGHUP set the event; a second one ends the process."""
    stop = threading.Event()

    def handle(number: int, _frame: object) -> None:
        logger.info("%s: finishing", signal.Signals(number).name)
        signal.signal(number, previous[signal.Signals(number)])
        stop.set()

    numbers = [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)]
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _reporter(pipeline: Pipeline) -> Callable[[], None]:
    """Says how it goes every few seconds."""
    next_s = time.monotonic() + REPORT_EVERY_S

    def tick() -> None:
        nonlocal next_s
        if time.monotonic() >= next_s:
            next_s += REPORT_EVERY_S
            logger.info("%s", pipeline.report().line())

    return tick


if __name__ == "__main__":
    leave(main())
