"""python -m benchmarks.scale images|streams|sizes|classes: how time and memory grow.

``images``: an adaptation against the number of target images. ``streams``: several streams on one
model. ``sizes`` and ``classes``: a frame against the input's size and the number of classes. For
processes see ``benchmarks.data_parallel``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measuring.arguments import add_rows_file, add_threads, several
from runtime.arguments import positive, size_hw
from runtime.bundle.manifest import read_manifest
from runtime.output import start_output
from runtime.packaged import BUNDLE_DIR

if TYPE_CHECKING:
    from benchmarks.measuring.rows import Invocation, Row

_SIZES = "256x128,384x192,512x256,768x384,1024x512"
_MOST_CLASSES = 255
Figures = dict[str, dict[str, Any]]


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description="Measure how time and memory grow."
    )
    axes = parser.add_subparsers(dest="axis", required=True)
    images = axes.add_parser("images", help="an adaptation against the number of images")
    _add_counts(images, "100,1000,10000")
    images.add_argument("--method", default="multiview", help="(default: %(default)s)")
    images.add_argument("--steps", type=positive, default=20, help="of training (%(default)s)")
    streams = axes.add_parser("streams", help="several streams on one model")
    _add_counts(streams, "1,2,4,8")
    streams.add_argument(
        "--bundle", type=Path, default=BUNDLE_DIR, metavar="DIR", help="(packaged)"
    )
    streams.add_argument("--frames", type=positive, default=240, help="of a round (%(default)s)")
    streams.add_argument("--rounds", type=positive, default=5, help="(default: %(default)s)")
    sizes = axes.add_parser("sizes", help="a frame against the input's size")
    sizes.add_argument(
        "--sizes", type=several(size_hw), default=_SIZES, metavar="WxH,WxH", help="(%(default)s)"
    )
    classes = axes.add_parser("classes", help="a frame against the number of classes")
    _add_counts(classes, "2,11,19,66,150")
    for axis in (streams, sizes, classes):
        add_threads(axis)
    for axis in (sizes, classes):
        axis.add_argument("--seconds", type=positive, default=3, help="of each (%(default)s)")
    for axis in (images, streams, sizes, classes):
        add_rows_file(axis)
    return parser


def _add_counts(axis: argparse.ArgumentParser, default: str) -> None:
    axis.add_argument(
        "--counts",
        type=several(positive),
        default=default,
        metavar="N,N",
        help=f"(default: {default})",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    start_output()
    parser = build_parser()
    args = parser.parse_args(arguments)
    if args.axis == "classes" and not all(2 <= one <= _MOST_CLASSES for one in args.counts):
        parser.error(f"--counts: a model has 2 to {_MOST_CLASSES} classes")
    from benchmarks.measuring.program import keep_and_print
    from benchmarks.measuring.rows import invocation
    from benchmarks.scale.table import table

    begun = invocation("benchmarks.scale", arguments)
    return keep_and_print(lambda: _measure(args, begun), table, args.out)


def _measure(args: argparse.Namespace, begun: Invocation) -> list[Row]:
    from benchmarks.measuring.machine import watch
    from benchmarks.measuring.rows import Origin

    # The packaged bundle is of the packaged model, which is measured unless --bundle names another.
    manifest = read_manifest(getattr(args, "bundle", BUNDLE_DIR))
    height, width = manifest.input_hw
    size = "" if args.axis == "sizes" else f"{width}x{height}"
    kept = ("axis", "method", "steps", "threads", "frames")
    conditions = {name: getattr(args, name) for name in kept if hasattr(args, name)}
    with watch() as watched:
        figures = _AXES[args.axis](args)
    network = manifest.provenance.get("architecture", "")
    origin = Origin(begun, network, size, manifest.precision)
    return origin.rows(figures, watched.machine, conditions)


def _images(args: argparse.Namespace) -> Figures:
    from benchmarks.scale.images import measure_images

    return measure_images(args.counts, args.method, args.steps)


def _streams(args: argparse.Namespace) -> Figures:
    from benchmarks.scale.streams import measure_streams

    settings = {name: getattr(args, name) for name in ("frames", "rounds", "threads")}
    return measure_streams(args.counts, args.bundle, **settings)


def _of_sizes(args: argparse.Namespace) -> Figures:
    from benchmarks.measuring.closed_loop import Effort
    from benchmarks.scale.graphs import measure_sizes

    return measure_sizes(args.sizes, Effort(min_seconds=args.seconds), args.threads)


def _of_classes(args: argparse.Namespace) -> Figures:
    from benchmarks.measuring.closed_loop import Effort
    from benchmarks.scale.graphs import measure_classes

    return measure_classes(args.counts, Effort(min_seconds=args.seconds), args.threads)


_AXES: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "images": _images,
    "streams": _streams,
    "sizes": _of_sizes,
    "classes": _of_classes,
}


if __name__ == "__main__":
    sys.exit(main())
