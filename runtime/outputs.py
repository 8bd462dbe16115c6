"""Where a stream's results go: check the names that were given, and open the sinks."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import SinkError, missing_package

if TYPE_CHECKING:
    from runtime.backends import Backend
    from runtime.bundle.manifest import Manifest
    from runtime.overlay import Overlay
    from runtime.page.server import PageServer
    from runtime.page.view import LiveView
    from runtime.pipeline import Pipeline
    from runtime.sinks import Sink
    from runtime.sinks.jsonl import ResultLines
    from runtime.sources.base import Source


def require_other_files(args: argparse.Namespace, bundle_dir: Path) -> None:
    """Check that no output replaces a file that is read, or gets into the bundle.

    Raises:
        SinkError: one would, or both outputs are one file.
    """
    outputs = {
        "--save": args.save,
        "--jsonl": None if args.jsonl == "-" else args.jsonl,
        "--record": args.record,
    }
    inputs = {"source": Path(args.source.removeprefix("replay:")), "bundle": bundle_dir}
    for flag, name in outputs.items():
        for what, path in inputs.items() if name is not None else ():
            if _is_or_holds(path, Path(name)):
                raise SinkError(f"{flag} {name} is in the {what}, {path}; name another file")
    given = [Path(name) for name in outputs.values() if name is not None]
    if len(set(given)) < len(given):
        raise SinkError(f"{' and '.join(outputs)} need different files, {given[0]} comes twice")


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


def open_sinks(
    args: argparse.Namespace,
    manifest: Manifest,
    *,
    source: Source,
    backend: Backend,
    pipeline: Pipeline,
    stack: contextlib.ExitStack,
) -> list[Sink]:
    """The sinks that the command line asks for; the stack closes them.

    Raises:
        SinkError: one does not open.
    """
    from runtime.overlay import Overlay
    from runtime.sinks.jsonl import JsonLinesSink, ResultLines
    from runtime.sinks.replay_check import ReplayCheck
    from runtime.sinks.service import ServiceSink
    from runtime.sinks.video import VideoSink
    from runtime.sinks.window import WindowSink
    from runtime.sources.replay import ReplaySource

    label_space = manifest.label_space
    overlay = Overlay(label_space, caption=backend.caption())
    lines = ResultLines(label_space, backend.record())
    sinks: list[Sink] = []
    if args.serve is not None:
        view = _live_view(source, overlay, backend, pipeline)
        stack.enter_context(_serve(view, args.serve))
        sinks.append(view)
    # Those that empty a file come last: by then the others are known to open.
    makers: list[tuple[bool, Callable[[], Sink]]] = [
        (args.save is not None, lambda: VideoSink(args.save, overlay, source.fps, source.live)),
        (args.show, lambda: WindowSink(overlay)),
        ("NOTIFY_SOCKET" in os.environ, lambda: ServiceSink(os.environ["NOTIFY_SOCKET"])),
        (args.record is not None, lambda: _recording(args.record, overlay, manifest, lines)),
        (args.jsonl is not None, lambda: JsonLinesSink(args.jsonl, lines)),
    ]
    for wanted, make in makers:
        if wanted:
            sinks.append(make())
            stack.callback(sinks[-1].close)
    if isinstance(source, ReplaySource):
        sinks.append(ReplayCheck(source))
    return sinks


def _recording(path: Path, overlay: Overlay, manifest: Manifest, lines: ResultLines) -> Sink:
    try:
        from runtime.sinks.mcap import McapSink
    except ModuleNotFoundError as error:
        raise SinkError(missing_package("--record", error, "record")) from None
    facts = {"model_sha256": manifest.sha256[manifest.model_file], **lines.backend}
    return McapSink(path, overlay, input_hw=manifest.input_hw, lines=lines, facts=facts)


def _live_view(source: Source, overlay: Overlay, backend: Backend, pipeline: Pipeline) -> LiveView:
    try:
        from runtime.page.view import LiveView
    except ModuleNotFoundError as error:
        raise SinkError(missing_package("--serve", error, "serve")) from None
    return LiveView(
        source,
        overlay.label_space,
        overlay=overlay,
        backend=backend.record(),
        snapshot=pipeline.snapshot,
    )


def _serve(view: LiveView, address: tuple[str, int]) -> PageServer:
    try:
        from runtime.page.server import PageServer
    except ModuleNotFoundError as error:
        raise SinkError(missing_package("--serve", error, "serve")) from None
    return PageServer(view, address)
