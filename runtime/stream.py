"""python -m runtime.stream SOURCE: segment a live stream, show it, save it, measure it."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import ConfigError, SourceError, StreamError
from runtime.output import leave, print_error, print_result, start_log, start_output
from runtime.outputs import (
    expanded,
    open_page,
    open_sinks,
    require_other_files,
    tell_service_manager,
)
from runtime.stream_arguments import add_arguments, build_parser, flags_beside_config
from runtime.trace import TraceFile

if TYPE_CHECKING:
    from runtime.backends import Backend
    from runtime.bundle.manifest import Manifest
    from runtime.stream_run import StreamRun

logger = logging.getLogger("runtime.stream")
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
    """Open everything, run, and print the summary of what was run, whatever ended it.

    Returns:
        1 when a replay differs from its recording, else 0.

    Raises:
        StreamError: something does not open, or broke on the way.
    """
    from runtime.bundle.manifest import read_manifest, without_links
    from runtime.stream_run import run_all

    each = _arguments_of_each(args)
    process = each[0]
    start_log(process.log_format)  # which a file may change
    bundle_dir = without_links(choose_bundle(process.bundle))
    require_other_files(each, bundle_dir, args.config)
    if process.cpus is not None:
        _keep_to(process.cpus)
    manifest = read_manifest(bundle_dir)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(_stopping_on_signals())
        # The model first: it may take a while, and a camera's frames would grow old.
        backend = stack.enter_context(
            _open_model(process, bundle_dir, manifest, shared=len(each) > 1)
        )
        height, width = manifest.input_hw
        logger.info("%s, %dx%d", backend.line(), width, height)
        trace = (
            None
            if process.trace is None
            else stack.enter_context(TraceFile(expanded(process.trace)))
        )
        runs = _open_runs(each, stack, backend=backend, manifest=manifest, stop=stop, trace=trace)
        if stop.is_set():
            return 0  # before files of an earlier stream are emptied
        if process.serve is not None:
            open_page(runs, backend, process.serve, stack)
        tell_service_manager(runs, stack)
        # Those that empty a file come last: by then all else is known to open.
        for run in runs:
            run.sinks += open_sinks(run, manifest, backend=backend, stack=stack)
        try:
            run_all(runs)
        finally:
            to_errors = any(one.jsonl == "-" for one in each)
            _print("\n".join(run.summary(len(runs) > 1) for run in runs), to_errors)
        return int(any(run.differs for run in runs))
    raise AssertionError("an exit stack swallows no exception")


def _arguments_of_each(args: argparse.Namespace) -> list[argparse.Namespace]:
    """The arguments of each source: of the command line, or of a file.

    Raises:
        ConfigError: the file is wrong, or other flags stand beside it.
    """
    from runtime.config import read_config

    if args.config is None:
        if args.source is None:
            raise ConfigError("name a SOURCE such as camera0, or give --config FILE.toml")
        args.name = None
        return [args]
    if args.source is not None:
        raise ConfigError(f"{args.config} lists the sources; leave '{args.source}' out")
    if others := flags_beside_config(args):
        raise ConfigError(f"write {', '.join(others)} into {args.config}: it has all the flags")
    each = read_config(args.config, add_arguments)
    if len(each) > 1 and any(one.show for one in each):
        raise ConfigError(f"{args.config}: show is for one source; use serve for several")
    return each


def _open_model(
    args: argparse.Namespace, bundle_dir: Path, manifest: Manifest, *, shared: bool
) -> Backend:
    from runtime.backends import open_backend
    from runtime.backends.shared import SharedModel

    backend = open_backend(args.backend, bundle_dir, manifest, args.threads)
    most = backend.max_batch if shared else 1
    if args.batch is not None and args.batch > most:
        logger.warning("--batch %d: it will be %d; docs/device.md says why", args.batch, most)
    return SharedModel(backend, args.batch) if shared else backend


def _open_runs(
    each: Sequence[argparse.Namespace],
    stack: contextlib.ExitStack,
    *,
    backend: Backend,
    manifest: Manifest,
    stop: threading.Event,
    trace: TraceFile | None,
) -> list[StreamRun]:
    """All sources, of which one has to be there; those that are opened when a signal comes.

    Raises:
        SourceError: none is there, or one is not what its arguments say.
    """
    from runtime.sources.grammar import open_source
    from runtime.sources.watchdog import State
    from runtime.stream_run import StreamRun, source_settings

    runs: list[StreamRun] = []
    for args in each:
        if stop.is_set():
            return runs
        settings = source_settings(args, beside_others=len(each) > 1)
        source = stack.enter_context(open_source(args.source, settings))
        runs.append(
            StreamRun(args, source, backend=backend, manifest=manifest, stop=stop, trace=trace)
        )
    if all(run.source.state is State.LOST for run in runs):
        raise SourceError(f"none of the {len(runs)} sources opens; the lines above say why")
    return runs


def _keep_to(cpus: frozenset[int]) -> None:
    """Let this process, and threads that it starts, run on these processors only.

    Raises:
        ConfigError: the machine has none of them, or cannot limit a process.
    """
    try:
        os.sched_setaffinity(0, cpus)
    except (AttributeError, OSError):
        raise ConfigError(
            f"--cpus {','.join(map(str, sorted(cpus)))}: this machine has {os.cpu_count()} "
            "processors, from 0; or it cannot limit a process"
        ) from None


def _print(summary: str, to_errors: bool) -> None:
    if to_errors:
        print(summary, file=sys.stderr)
    else:
        print_result(summary)


@contextlib.contextmanager
def _stopping_on_signals() -> Iterator[threading.Event]:
    """Ctrl-C, SIGTERM and SIGHUP set the event; a second one ends the process.

    What is ignored stays ignored: nohup starts programs so, and shells those in the background.
    """
    stop = threading.Event()

    def handle(number: int, _frame: object) -> None:
        logger.info("%s: finishing", signal.Signals(number).name)
        signal.signal(number, previous[signal.Signals(number)])
        stop.set()

    numbers = [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)]
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, handle) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    leave(main())
