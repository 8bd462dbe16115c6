"""python -m benchmarks.engines BUNDLE …: an engine of each, and what proves its precision."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring.machine import machine_line, machine_record
from benchmarks.records import output_file, write_record
from export.engine.request import EngineRequest, build_engine
from export.errors import ExportError
from runtime.bundle.engine_file import LIBRARIES, engine_paths
from runtime.bundle.engine_layers import multiplies
from runtime.bundle.manifest import read_manifest
from runtime.errors import StreamError
from runtime.output import print_error

RESULTS = Path("benchmarks/results/engines.json")


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engines", description="Build and prove an engine of each bundle."
    )
    parser.add_argument("bundles", nargs="*", type=Path, metavar="BUNDLE")
    parser.add_argument(
        "--library", choices=LIBRARIES, default="tensorrt-rtx", help="(%(default)s)"
    )
    parser.add_argument(
        "--compute-capability", metavar="X.Y", help="to build for; the GPU that is here by default"
    )
    parser.add_argument(
        "--out", type=output_file, default=str(RESULTS), metavar="FILE", help="(%(default)s)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    if not args.bundles and not args.out.is_file():
        parser.error(f"name bundles: {args.out} holds no rows yet")
    request = EngineRequest(args.library, args.compute_capability)
    try:
        rows = [measure(bundle, request) for bundle in args.bundles]
    except (ExportError, StreamError) as error:
        print_error(error)
        return 2
    if rows:
        record = {"rows": rows, "machine": machine_record()}
        write_record(args.out, record)
    print(text(json.loads(args.out.read_text(encoding="utf-8"))))
    return 0


def measure(bundle: Path, request: EngineRequest) -> dict[str, Any]:
    """Build in a copy: bundles that are shipped are left as they are."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(bundle, Path(folder) / "bundle")
        record = build_engine(copy, request)
        size = engine_paths(copy, request.library)[0].stat().st_size
    manifest = read_manifest(bundle)
    height, width = manifest.input_hw
    return {
        "network": manifest.provenance["architecture"],
        "size": f"{width}x{height}",
        "precision": record.precision,
        "library": f"{record.library} {record.library_version}",
        "compute_capability": record.compute_capability,
        "gpu": record.gpu,
        "proved_by": record.proved_by,
        "layer_types": record.layer_types,
        "io_types": record.io_types,
        "bytes": size,
        "build_s": record.build_s,
    }


def text(record: dict[str, Any]) -> str:
    """The rows for a terminal."""
    lines = [f"{'':<36}{'MB':>6}{'build s':>9}  layers that multiply, by type"]
    for row in record["rows"]:
        name = f"{row['network']} {row['size']} {row['precision']}"
        cells = f"{row['bytes'] / 1e6:>6.1f}{row['build_s']:>9.1f}"
        lines.append(f"{name:<36}{cells}  {_multiplying(row['layer_types'])}")
    return "\n".join([*lines, machine_line(record["machine"])])


def _multiplying(layer_types: dict[str, int]) -> str:
    kinds = sorted(kind for kind in layer_types if multiplies(kind.partition(" ")[0]))
    return ", ".join(f"{layer_types[kind]} {kind}" for kind in kinds)


if __name__ == "__main__":
    sys.exit(main())
