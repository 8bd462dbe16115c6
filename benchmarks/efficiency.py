"""python -m benchmarks.efficiency: what reading, drawing and saving cost beside the model.

On one 720p video, in alternating rounds of one run:

    engine                 the model's calls on frames that are decoded and resized already
    engine, spinning       the same while idle threads wait in a loop, as ONNX Runtime's default is
    stream                 file to label map, every frame
    stream, video          with overlay and H.264
    …, spinning            the same two on such threads
    plain loop             OpenCV reads and resizes, ONNX Runtime runs, one after the other
    plain loop, video      with colours blended and OpenCV's mp4v
    stream on openvino, opencv   the same stream on other libraries

Then the age of frames of a live source at 80 % of the stream's rate, and the processor time of a
frame outside the model, with a model that takes none.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring.arguments import add_rows_file, add_threads
from benchmarks.measuring.distribution import paired_ratio
from benchmarks.measuring.machine import watch
from benchmarks.measuring.program import keep_and_print
from benchmarks.measuring.rows import Invocation, Origin, Row, invocation
from benchmarks.measuring.table import Table, number, share_text, table_of
from runtime.arguments import positive
from runtime.bundle.manifest import read_manifest
from runtime.output import start_output
from runtime.packaged import BUNDLE_DIR

LIVE = "live, at 80 % of the stream's rate"
PROCESSOR = "processor time, no model"


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.efficiency",
        description="Measure what a stream costs beside its model.",
    )
    parser.add_argument("--bundle", type=Path, default=BUNDLE_DIR, metavar="DIR")
    parser.add_argument("--frames", type=positive, default=150, help="of a round (%(default)s)")
    parser.add_argument("--rounds", type=positive, default=5, help="default: %(default)s")
    add_threads(parser)
    add_rows_file(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    start_output()
    args = build_parser().parse_args(arguments)
    begun = invocation("benchmarks.efficiency", arguments)
    return keep_and_print(lambda: _measure(args, begun), table, args.out)


def _measure(args: argparse.Namespace, begun: Invocation) -> list[Row]:
    """All rounds, then the live source and the processor time."""
    from benchmarks.efficiency_bench import VIDEO_HW, Bench

    manifest = read_manifest(args.bundle)
    with tempfile.TemporaryDirectory() as name, watch() as watched:
        bench = Bench(args, manifest, Path(name))
        try:
            rates = bench.rates(args.rounds)
            figures = _shares(rates)
            for way in figures:
                figures[way]["backend"] = bench.backend_of(way)
            figures[LIVE] = bench.live(statistics.median(rates["stream"]))
            figures[PROCESSOR] = bench.processor_ms()
        finally:
            bench.close()
    height, width = manifest.input_hw
    network = manifest.provenance.get("architecture", str(args.bundle))
    origin = Origin(begun, network, f"{width}x{height}", manifest.precision)
    conditions: dict[str, str | int | float] = {
        "video": f"{VIDEO_HW[1]}x{VIDEO_HW[0]}",
        "frames_per_round": args.frames,
        "threads": args.threads,
    }
    return origin.rows(figures, watched.machine, conditions)


def _shares(rates: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """Of each way: its rate, and what share of the engine's that is in the same round."""
    return {
        way: {
            "per_second": round(statistics.median(found), 2),
            "share_of_engine": paired_ratio(found, rates["engine"]).record(),
        }
        for way, found in rates.items()
    }


def table(rows: Sequence[Row]) -> Table:
    """All rows are of one run."""
    first = rows[0]
    title = f"{first.network}, {first.size} from {first.conditions['video']}, "
    title += str(first.figures["backend"])
    columns = ["", "frames/s", "of the engine, %", "age p50, ms", "of the engine's p50"]
    columns += ["dropped", "processor, ms", "decoding, ms"]
    return table_of(rows, title, columns, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    figures = row.figures
    asked = number(figures, "asked_per_second", 1)
    dropped = f"{figures['dropped']} of {figures['read']}" if "dropped" in figures else ""
    return [
        row.way,
        number(figures, "per_second", 1) or (f"{asked} asked" if asked else ""),
        share_text(figures),
        number(figures, "age_p50_ms", 1),
        number(figures, "age_to_engine", 2),
        dropped,
        number(figures, "outside_model_and_decoding_ms", 2),
        number(figures, "decoding_ms", 2),
    ]


if __name__ == "__main__":
    sys.exit(main())
