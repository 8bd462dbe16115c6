"""python -m benchmarks.peers: the same frames and weights, ours and others', in one run.

``frames``: from a frame at the network's size to its label map, in turn: our backends, ONNX
Runtime, OpenVINO and OpenCV DNN around the bare network, torch eager, compiled and TorchScript.
``video``: from a video file to a video with coloured labels, around the same model call: our
stream, OpenCV's loop, supervision's and Ultralytics'.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.measuring.arguments import add_rows_file, add_threads
from runtime.arguments import positive, size_hw
from runtime.images import resize_image
from runtime.output import start_output
from runtime.packaged import CLIP
from runtime.sources.grammar import open_source
from sfda_edge.errors import DataError

if TYPE_CHECKING:
    from benchmarks.measuring.rows import Invocation, Row
    from benchmarks.peers.frame_ways import Subject

FRAMES = 8


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description="Measure ours and other ways to run the same weights.",
    )
    parts = parser.add_subparsers(dest="what", required=True)
    frames = parts.add_parser("frames", help="from a frame to its label map")
    frames.add_argument(
        "--seconds", type=positive, default=5, help="of each way (default: %(default)s)"
    )
    frames.add_argument(
        "--camera-fps", type=positive, default=15, help="of a camera to answer (%(default)s)"
    )
    frames.add_argument("--source", help="frames (default: the packaged clip)")
    video = parts.add_parser("video", help="from a video to a video with coloured labels")
    video.add_argument("--rounds", type=positive, default=5, help="(default: %(default)s)")
    video.add_argument("--source", help="a video file (default: the packaged clip in 720p)")
    for part in (frames, video):
        part.add_argument("run", nargs="?", type=Path, help="a run (default: the packaged model)")
        part.add_argument("--size", type=size_hw, metavar="WxH", help="of the network's input")
        add_threads(part)
        add_rows_file(part)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    start_output()
    args = build_parser().parse_args(arguments)
    from benchmarks.measuring.program import keep_and_print
    from benchmarks.measuring.rows import invocation
    from benchmarks.peers.table import table

    begun = invocation("benchmarks.peers", arguments)
    return keep_and_print(lambda: _measure(args, begun), table, args.out)


def _measure(args: argparse.Namespace, begun: Invocation) -> list[Row]:
    from benchmarks.measuring.machine import watch
    from benchmarks.measuring.rows import Origin

    with tempfile.TemporaryDirectory() as folder:
        subject = _subject(args, Path(folder))
        with watch() as watched:
            measure = _frames if args.what == "frames" else _video
            figures = measure(subject, args, Path(folder))
    height, width = subject.manifest.input_hw
    origin = Origin(
        begun,
        network=subject.source.spec.architecture,
        size=f"{width}x{height}",
        precision=subject.manifest.precision,
    )
    conditions = {"what": args.what, "threads": args.threads}
    if args.what == "frames":
        conditions["camera_fps"] = args.camera_fps
    return origin.rows(figures, watched.machine, conditions)


def _subject(args: argparse.Namespace, folder: Path) -> Subject:
    """Our bundle of the run, compared with it as always, and torch's export of the network."""
    import export
    from benchmarks.peers.frame_ways import prepare
    from sfda_edge.models.source_model import ModelRequest, load_source

    source = load_source(ModelRequest(args.run, size_hw=args.size))
    images = "streetsynth:target" if args.run is None else None
    bundle = export.export(source, images=images, out_dir=folder / "bundle")
    return prepare(source, bundle.path, folder, args.threads)


def _frames(subject: Subject, args: argparse.Namespace, _folder: Path) -> dict[str, dict[str, Any]]:
    from benchmarks.measuring.closed_loop import Effort
    from benchmarks.peers.frames import measure_benchmark_app, measure_frames

    with open_source(args.source or str(CLIP)) as source:
        found = (source.read() for _ in range(FRAMES))
        read = [frame.image for frame in found if frame is not None]
    if not read:
        raise DataError(f"{args.source} holds no frames")
    frames = [np.ascontiguousarray(resize_image(one, subject.manifest.input_hw)) for one in read]
    effort = Effort(min_seconds=args.seconds)
    figures = measure_frames(subject, frames, effort, args.camera_fps)
    return figures | {"OpenVINO benchmark_app": measure_benchmark_app(subject, args.seconds)}


def _video(subject: Subject, args: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    from benchmarks.peers.videos import measure_videos

    return measure_videos(subject, folder, args.rounds, args.source and Path(args.source))


if __name__ == "__main__":
    sys.exit(main())
