"""python -m benchmarks.scale images|streams|sizes|classes: how time and memory grow.

``images``: an adaptation against the number of target images. ``streams``: several streams on one
model. ``sizes`` and ``classes``: a frame against the input's size and the number of classes. For
processes see ``benchmarks.data_parallel``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.records import output_file
from runtime.arguments import natural, positive, size_hw
from runtime.errors import StreamError
from runtime.output import print_error, print_result, start_output
from runtime.packaged import BUNDLE_DIR
from sfda_edge.errors import SfdaEdgeError

if TYPE_CHECKING:
    from benchmarks.measuring.rows import Row

_COUNTS = {"images": "100,1000,10000", "streams": "1,2,4,8", "classes": "2,11,19,66,150"}
_SIZES = "256x128,384x192,512x256,768x384,1024x512"
AXES = ("images", "streams", "sizes", "classes")


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description="Measure how time and memory grow."
    )
    parser.add_argument("axis", choices=AXES, help="what grows")
    parser.add_argument("--counts", type=_numbers, metavar="N,N", help=f"(default: {_COUNTS})")
    parser.add_argument("--sizes", default=_SIZES, metavar="WxH,WxH", help="(%(default)s)")
    parser.add_argument("--method", default="multiview", help="of images (%(default)s)")
    parser.add_argument("--steps", type=positive, default=20, help="of images (%(default)s)")
    parser.add_argument("--bundle", type=Path, default=BUNDLE_DIR, help="of streams (packaged)")
    parser.add_argument("--frames", type=positive, default=240, help="of streams (%(default)s)")
    parser.add_argument("--rounds", type=positive, default=5, help="of streams (%(default)s)")
    parser.add_argument("--threads", type=natural, default=0, help="of one inference (automatic)")
    parser.add_argument(
        "--seconds", type=positive, default=3, help="of each size or class (%(default)s)"
    )
    parser.add_argument("--out", type=output_file, metavar="FILE.jsonl", help="add the rows")
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(positive(one) for one in text.split(","))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    start_output()
    args = build_parser().parse_args(arguments)
    if args.counts is None and args.axis in _COUNTS:
        args.counts = _numbers(_COUNTS[args.axis])
    from benchmarks.measuring.rows import append_rows, command_line
    from benchmarks.scale.table import table

    try:
        rows = _measure(args, command_line("benchmarks.scale", arguments))
    except (SfdaEdgeError, StreamError) as error:
        print_error(error)
        return 2
    if args.out is not None:
        append_rows(args.out, rows)
    print_result(table(rows).markdown())
    return 0


def _measure(args: argparse.Namespace, command: str) -> list[Row]:
    from benchmarks.measuring.machine import watch
    from benchmarks.measuring.rows import Origin
    from runtime.bundle.manifest import read_manifest

    # The packaged bundle and the packaged model, which have the same network, unless --bundle.
    manifest = read_manifest(args.bundle)
    height, width = manifest.input_hw
    conditions: dict[str, Any] = {"axis": args.axis, "threads": args.threads}
    if args.axis == "images":
        conditions |= {"method": args.method}
        conditions |= {} if args.method == "bn" else {"steps": args.steps}
    network = manifest.provenance.get("architecture", str(args.bundle))
    size = "" if args.axis == "sizes" else f"{width}x{height}"
    with watch() as watched:
        figures = _figures(args)
    origin = Origin("scale", command, network, size, precision="fp32")
    return origin.rows(figures, watched.machine, conditions)


def _figures(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    if args.axis == "images":
        from benchmarks.scale.images import measure_images

        return measure_images(args.counts, args.method, args.steps)
    if args.axis == "streams":
        from benchmarks.scale.streams import measure_streams

        settings = {name: getattr(args, name) for name in ("frames", "rounds", "threads")}
        return measure_streams(args.counts, args.bundle, **settings)
    from benchmarks.measuring.closed_loop import Effort
    from benchmarks.scale.graphs import measure_classes, measure_sizes

    effort = Effort(min_seconds=args.seconds)
    if args.axis == "sizes":
        sizes_hw = tuple(size_hw(one) for one in args.sizes.split(","))
        return measure_sizes(sizes_hw, effort, args.threads)
    return measure_classes(args.counts, effort, args.threads)


if __name__ == "__main__":
    sys.exit(main())
