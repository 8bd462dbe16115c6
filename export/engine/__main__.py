"""python -m export.engine BUNDLE: build a TensorRT engine from a bundle's graph, on the device."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from export.bundle.directory import held
from export.engine.request import EngineRequest, build_engine, describe
from export.errors import ExportError
from runtime.arguments import positive
from runtime.bundle.engine_file import LIBRARIES
from runtime.bundle.manifest import read_manifest
from runtime.errors import StreamError
from runtime.output import print_error, print_result, start_log, start_output

_MOST_WORKSPACE_MIB = 1 << 20


def _workspace(text: str) -> int:
    """For argparse: MiB that any builder can count in bytes."""
    mib = positive(text)
    if mib > _MOST_WORKSPACE_MIB:
        raise argparse.ArgumentTypeError(f"at most {_MOST_WORKSPACE_MIB}, got {text}")
    return mib


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m export.engine",
        description="Build a TensorRT engine from a bundle, on the device that will run it.",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="what sfda-edge export made")
    parser.add_argument(
        "--library", choices=LIBRARIES, default="tensorrt", help="what builds it (%(default)s)"
    )
    parser.add_argument(
        "--compute-capability",
        metavar="X.Y",
        help="build for another GPU than the one here; only with tensorrt-rtx",
    )
    parser.add_argument(
        "--workspace-mib",
        type=_workspace,
        default=EngineRequest.workspace_mib,
        metavar="MIB",
        help="memory for the builder's trials (%(default)s)",
    )
    parser.add_argument(
        "--max-batch",
        type=positive,
        default=1,
        metavar="N",
        help="most images at once, of a bundle with a dynamic batch (%(default)s)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code: 0 done, 2 the user has to change something."""
    start_output()
    args = build_parser().parse_args(arguments)
    start_log()
    request = EngineRequest(
        args.library, args.compute_capability, args.workspace_mib, args.max_batch
    )
    try:
        read_manifest(args.bundle)  # nothing is locked that is no bundle
        with held(args.bundle.resolve()):
            record = build_engine(args.bundle, request)
    except (OSError, ExportError, StreamError) as error:
        print_error(error)
        return getattr(error, "exit_code", 2)
    except KeyboardInterrupt:
        return 130
    print_result(describe(args.bundle, record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
