"""Where a stream's results go: check the names that were given, and open page and sinks."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import SinkError, missing_package

if TYPE_CHECKING:
    from runtime.backends import Backend
    from runtime.bundle.manifest import Manifest
    from runtime.overlay import Overlay
    from runtime.sinks import Sink
    from runtime.sinks.jsonl import ResultLines
    from runtime.stream_run import StreamRun

_FILES = ("save", "labels", "record", "jsonl", "trace")
# The beginning of every unit of time: a name that changes from here on changes whenever we start.
_NEW_YEAR = datetime(2026, 1, 1)


def expanded(name: Path | str, at: datetime | None = None) -> Path:
    """A file's name; codes of strftime in it stand for a time, ``%%`` for a ``%``.

    Args:
        name: as it was given.
        at: the time; None for now.

    Raises:
        SinkError: no file can have this name.
    """
    moment = (at or datetime.now()).timetuple()
    try:
        return Path(time.strftime(str(name), moment) if "%" in str(name) else name)
    except ValueError as error:  # a null byte, or a code that strftime does not know
        raise SinkError(f"{str(name)!r} is no name for a file: {error}") from None


def require_other_files(
    each: Sequence[argparse.Namespace], bundle_dir: Path, config: Path | None
) -> None:
    """Check that no output replaces a file that is read or another output, or is in the bundle.

    Args:
        each: the arguments of each source.
        bundle_dir: the bundle.
        config: the file that they are from; None for the command line.

    Raises:
        SinkError: one would.
    """
    inputs = [("bundle", bundle_dir)]
    inputs += [("source", _read_path(args.source)) for args in each]
    inputs += [] if config is None else [("configuration", config)]
    taken: dict[Path, str] = {}
    if sum(args.jsonl == "-" for args in each) > 1:
        raise SinkError("--jsonl - is for one source; give each of several a file of its own")
    for args in each:
        _require_changing_names(args)
        for flag, path in _outputs(args):
            for what, read in inputs:
                if _is_or_holds(read, path):
                    held = "is" if what == "configuration" else "is in"
                    raise SinkError(f"{flag} {path} {held} the {what}, {read}; name another file")
            place = _place(path)
            if place in taken and not (flag == "--trace" and taken[place] == "--trace"):
                raise SinkError(
                    f"{flag} and {taken[place]} need different files, {path} comes twice: name "
                    "another, for each of several sources one"
                )
            taken[place] = flag


def _require_changing_names(args: argparse.Namespace) -> None:
    """With ``--split-minutes``, the next file must have another name.

    Raises:
        SinkError: it would not, or there is nothing to split.
    """
    if args.split_minutes is None:
        return
    split = [
        (f"--{flag}", name)
        for flag in _FILES
        if flag != "trace" and (name := getattr(args, flag)) is not None and name != "-"
    ]
    if not split:
        raise SinkError("--split-minutes: there is no file to split; add --record, --save, …")
    try:
        later = _NEW_YEAR + timedelta(minutes=args.split_minutes)
    except OverflowError:
        raise SinkError(
            f"--split-minutes {args.split_minutes:g}: a file would end after the last date there is"
        ) from None
    for flag, name in split:
        if expanded(name, _NEW_YEAR) == expanded(name, later):
            raise SinkError(
                f"--split-minutes {args.split_minutes:g}: {flag} {name} would have the same name "
                f"then; add codes of the time, such as {_with_time(Path(name))}"
            )


def _with_time(name: Path) -> Path:
    return name.with_name(f"{name.stem}-%Y%m%d-%H%M%S{name.suffix}")


def _read_path(source: str) -> Path:
    """The file or folder that a source reads, if it reads one."""
    path = Path(source.removeprefix("replay:"))
    return path.parent if "*" in path.name else path  # a pattern's images lie in its folder


def _outputs(args: argparse.Namespace) -> list[tuple[str, Path]]:
    """Flag and file of each output."""
    given = {name: getattr(args, name) for name in _FILES}
    if given["jsonl"] == "-":
        given["jsonl"] = None
    return [(f"--{name}", expanded(path)) for name, path in given.items() if path is not None]


def _place(path: Path) -> Path:
    """The same for every name of a file."""
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):  # whoever opens it reports it
        return path


def _is_or_holds(read: Path, written: Path) -> bool:
    """Whether ``written`` is a file that is read, by any name of it, or would be beside those."""
    try:
        if not read.is_dir():
            return read.exists() and written.exists() and written.samefile(read)
        if read.resolve() in (written.resolve(), written.resolve().parent):
            return True
        return written.exists() and any(written.samefile(path) for path in read.iterdir())
    except (OSError, ValueError):  # such as a name too long, which whoever opens it reports
        return False


def open_page(
    runs: Sequence[StreamRun],
    backend: Backend,
    address: tuple[str, int],
    stack: contextlib.ExitStack,
) -> None:
    """Serve a page of all runs, and give each a sink that feeds it; the stack closes it.

    Raises:
        SinkError: a package is missing, or the address cannot be used.
    """
    from runtime.overlay import Overlay

    try:
        from runtime.page.metrics import StreamMetrics
        from runtime.page.server import PageServer
        from runtime.page.view import LiveView
    except ModuleNotFoundError as error:
        raise SinkError(missing_package("--serve", error, "serve")) from None
    metrics = StreamMetrics(backend.record())
    views = [
        LiveView(
            run.name,
            run.source,
            overlay=Overlay(run.label_space, caption=backend.caption()),
            backend=backend.record(),
            snapshot=run.pipeline.snapshot,
            metrics=metrics,
        )
        for run in runs
    ]
    stack.enter_context(PageServer(views, metrics, address))
    for run, view in zip(runs, views, strict=True):
        run.sinks.append(view)


def tell_service_manager(runs: Sequence[StreamRun], stack: contextlib.ExitStack) -> None:
    """Give each run a sink that tells systemd, where systemd started us and wants to know."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        from runtime.sinks.service import Service, ServiceSink

        service = Service(address, {run.name: run.source for run in runs})
        for run in runs:
            run.sinks.append(ServiceSink(service, run.name))
            stack.callback(run.sinks[-1].close)


def open_sinks(
    run: StreamRun, manifest: Manifest, *, backend: Backend, stack: contextlib.ExitStack
) -> list[Sink]:
    """The sinks that a source's arguments ask for, but the page; the stack closes them.

    Raises:
        SinkError: one does not open.
    """
    from runtime.overlay import Overlay
    from runtime.sinks.jsonl import ResultLines
    from runtime.sinks.replay_check import ReplayCheck
    from runtime.sinks.window import WindowSink
    from runtime.sources.replay import ReplaySource

    args = run.args
    overlay = Overlay(run.label_space, caption=backend.caption())
    lines = ResultLines(run.name, run.label_space, backend.record())
    makers: list[Callable[[], Sink]] = []
    if args.show:
        makers.append(lambda: WindowSink(overlay))
    makers += _file_makers(run, manifest, overlay=overlay, lines=lines)
    if isinstance(source := run.source, ReplaySource):
        makers.append(lambda: ReplayCheck(source))
    sinks: list[Sink] = []
    for make in makers:
        sinks.append(make())
        stack.callback(sinks[-1].close)
    return sinks


def _file_makers(
    run: StreamRun, manifest: Manifest, *, overlay: Overlay, lines: ResultLines
) -> list[Callable[[], Sink]]:
    """What opens each file that was asked for; files that are emptied at once come last."""
    from runtime.sinks.jsonl import JsonLinesSink
    from runtime.sinks.labels import open_label_sink
    from runtime.sinks.split import SplitSink
    from runtime.sinks.video import VideoSink

    args, source = run.args, run.source

    def video(path: Path) -> Sink:
        return VideoSink(path, overlay, source.fps, source.live)

    def labels(path: Path) -> Sink:
        return open_label_sink(path, source.fps, source.live)

    def recording(path: Path) -> Sink:
        return _recording(path, overlay, manifest, lines)

    def result_lines(path: Path) -> Sink:
        return JsonLinesSink(str(path), lines, run.stop)

    kinds: list[tuple[Path | str | None, Callable[[Path], Sink]]] = [
        (args.save, video),
        (args.labels, labels),
        (args.record, recording),
        (args.jsonl, result_lines),
    ]
    makers: list[Callable[[], Sink]] = []
    for name, make in kinds:
        if name is None:
            continue
        if args.split_minutes is None or name == "-":
            makers.append(partial(make, expanded(name)))
        else:
            named = partial(expanded, name)
            makers.append(partial(SplitSink, named, make, period_s=60 * args.split_minutes))
    return makers


def _recording(path: Path, overlay: Overlay, manifest: Manifest, lines: ResultLines) -> Sink:
    try:
        from runtime.sinks.mcap import McapSink
    except ModuleNotFoundError as error:
        raise SinkError(missing_package("--record", error, "record")) from None
    return McapSink(path, overlay, input_hw=manifest.input_hw, lines=lines, facts=lines.backend)
