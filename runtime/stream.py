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
from runtime.stream_arguments import build_parser

if TYPE_CHECKING:
    from runtime.backends import Backend
    from runtime.bundle.labels import LabelSpace
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
    """Run the program; returns the exit code: 0 done, 2 the user has to change something."""
    start_output()
    args = build_parser().parse_args(arguments)
    start_log()
    try:
        stream(args)
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
    return 0


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


def stream(args: argparse.Namespace) -> None:
    """Open everything, run, and print the summary, whatever ended the stream.

    Raises:
        StreamError: something does not open, or broke on the way.
    """
    from runtime.backends import open_backend
    from runtime.bundle.manifest import read_manifest
    from runtime.loss import LossPolicy
    from runtime.pipeline import Pipeline
    from runtime.sinks.window import WindowClosed
    from runtime.sources.grammar import open_source

    bundle_dir = choose_bundle(args.bundle)
    _require_other_files(args, bundle_dir)
    manifest = read_manifest(bundle_dir)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(_stopping_on_signals())
        source = stack.enter_context(open_source(args.source, _source_settings(args)))
        backend = stack.enter_context(
            open_backend(args.backend, bundle_dir, manifest, args.threads)
        )
        sinks = _open_sinks(args, manifest.label_space, source, backend=backend, stack=stack)
        height, width = manifest.input_hw
        logger.info("%s, %dx%d", backend.line(), width, height)
        logger.info("%s: %s frame", source.name, args.buffer if source.live else "every")
        pipeline = Pipeline(
            source,
            backend,
            manifest.input_hw,
            sinks,
            max_frames=args.frames,
            stop=stop,
            loss=LossPolicy(args.on_loss, manifest.label_space.ignore_index),
            buffer_policy=args.buffer,
            deadline_ms=args.deadline_ms,
        )
        try:
            pipeline.run(_reporter(pipeline))
        except WindowClosed:
            pass
        finally:
            summary = pipeline.stats.snapshot(pipeline.frames_read, pipeline.frames_dropped)
            if args.jsonl == "-":
                print(summary.table(), file=sys.stderr)
            else:
                print_result(summary.table())


def _source_settings(args: argparse.Namespace) -> SourceSettings:
    from runtime.sources.settings import SourceSettings
    from runtime.sources.watchdog import Limits

    return SourceSettings(
        size_hw=args.size,
        fps=args.fps,
        pixel_format=args.format,
        limits=Limits(stale_s=args.stale_after, lost_s=args.lost_after),
        reconnect=args.reconnect,
    )


def _require_other_files(args: argparse.Namespace, bundle_dir: Path) -> None:
    """Check that no output replaces a file that is read, or gets into the bundle.

    Raises:
        SinkError: one would, or both outputs are one file.
    """
    from runtime.errors import SinkError

    outputs = {"--save": args.save, "--jsonl": None if args.jsonl == "-" else args.jsonl}
    inputs = {"source": Path(args.source), "bundle": bundle_dir}
    for flag, name in outputs.items():
        for what, path in inputs.items() if name is not None else ():
            if _is_or_holds(path, Path(name)):
                raise SinkError(f"{flag} {name} is in the {what}, {path}; name another file")
    if args.save is not None and args.jsonl is not None and Path(args.jsonl) == args.save:
        raise SinkError(f"--save and --jsonl are both {args.save}")


def _is_or_holds(read: Path, written: Path) -> bool:
    """Whether ``written`` is a file that is read, by any name of it, or would be beside those."""
    try:
        if not read.is_dir():
            return read.exists() and written.exists() and written.samefile(read)
        if written.resolve().parent == read.resolve():
            return True
        return written.exists() and any(written.samefile(path) for path in read.iterdir())
    except (OSError, ValueError):  # such as a name too long, which whoever opens it reports
        return False


def _open_sinks(
    args: argparse.Namespace,
    label_space: LabelSpace,
    source: Source,
    *,
    backend: Backend,
    stack: contextlib.ExitStack,
) -> list[Sink]:
    from runtime.overlay import Overlay
    from runtime.sinks.jsonl import JsonLinesSink
    from runtime.sinks.video import VideoSink
    from runtime.sinks.window import WindowSink

    overlay = Overlay(label_space, caption=backend.caption())
    makers: list[tuple[bool, Callable[[], Sink]]] = [
        (args.jsonl is not None, lambda: JsonLinesSink(args.jsonl, label_space, backend.record())),
        (args.save is not None, lambda: VideoSink(args.save, overlay, source.fps, source.live)),
        (args.show, lambda: WindowSink(overlay)),
    ]
    sinks = []
    for wanted, make in makers:
        if wanted:
            sinks.append(make())
            stack.callback(sinks[-1].close)
    return sinks


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
            report = pipeline.stats.report(pipeline.frames_read, pipeline.frames_dropped)
            logger.info("%s", report.line())

    return tick


if __name__ == "__main__":
    leave(main())
