"""python -m benchmarks.engines BUNDLE …: an engine of each, and what proves its precision."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring.arguments import add_rows_file
from benchmarks.measuring.machine import watch
from benchmarks.measuring.program import keep_and_print
from benchmarks.measuring.rows import Invocation, Origin, Row, invocation
from benchmarks.measuring.table import Table, number, table_of
from export.engine.request import EngineRequest, build_engine
from runtime.bundle.engine_file import LIBRARIES, engine_paths
from runtime.bundle.engine_layers import multiplies
from runtime.bundle.manifest import read_manifest
from runtime.output import start_output


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engines", description="Build and prove an engine of each bundle."
    )
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument(
        "--library", choices=LIBRARIES, default="tensorrt-rtx", help="(%(default)s)"
    )
    parser.add_argument(
        "--compute-capability", metavar="X.Y", help="to build for; the GPU that is here by default"
    )
    add_rows_file(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    start_output()
    args = build_parser().parse_args(arguments)
    begun = invocation("benchmarks.engines", arguments)
    return keep_and_print(lambda: _measure(args, begun), table, args.out)


def _measure(args: argparse.Namespace, begun: Invocation) -> list[Row]:
    request = EngineRequest(args.library, args.compute_capability)
    with watch() as watched:
        built = [(read_manifest(bundle), _built(bundle, request)) for bundle in args.bundles]
    rows = []
    for manifest, figures in built:
        height, width = manifest.input_hw
        network = manifest.provenance["architecture"]
        origin = Origin(begun, network, f"{width}x{height}", figures["precision"])
        conditions = {"library": figures.pop("library")}
        rows += origin.rows({"engine": figures}, watched.machine, conditions)
    return rows


def _built(bundle: Path, request: EngineRequest) -> dict[str, Any]:
    """Build in a copy: bundles that are shipped are left as they are."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(bundle, Path(folder) / "bundle")
        record = build_engine(copy, request)
        size = engine_paths(copy, request.library)[0].stat().st_size
    return {
        "library": f"{record.library} {record.library_version}",
        "precision": record.precision,
        "compute_capability": record.compute_capability,
        "gpu": record.gpu,
        "proved_by": record.proved_by,
        "layer_types": record.layer_types,
        "io_types": record.io_types,
        "bytes": size,
        "build_s": record.build_s,
    }


def table(rows: Sequence[Row]) -> Table:
    """All rows are of one run."""
    first = rows[0]
    title = f"{first.conditions['library']} for compute capability "
    title += str(first.figures["compute_capability"])
    columns = ["", "MB", "build, s", "layers that multiply, by type", "proved by"]
    return table_of(rows, title, columns, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    return [
        " ".join(row.subject),
        number(row.figures, "bytes", 1, 1e-6),
        number(row.figures, "build_s", 1),
        _multiplying(row.figures["layer_types"]),
        row.figures["proved_by"],
    ]


def _multiplying(layer_types: dict[str, int]) -> str:
    kinds = sorted(kind for kind in layer_types if multiplies(kind.partition(" ")[0]))
    return ", ".join(f"{layer_types[kind]} {kind}" for kind in kinds)


if __name__ == "__main__":
    sys.exit(main())
