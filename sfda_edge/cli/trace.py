"""sfda-edge trace: where a file came from, with every hash checked."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from runtime.output import print_result
from sfda_edge.cli import options


def add(commands: Any) -> None:
    """Add the command."""
    parser = options.add_command(
        commands, "trace", "Show where a file came from, and check every hash.", run
    )
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        default=Path("bundle"),
        metavar="FILE",
        help="a bundle or a file of one, a lone .onnx, a run or its weights (default: bundle)",
    )
    parser.add_argument(
        "--origin",
        type=Path,
        metavar="PATH",
        help="the run or the weights that it was made from (default: looked for in runs/)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code is 1 where a hash differs."""
    from export.bundle.link import DIFFERS, NOT_HERE
    from export.bundle.trace import trace

    links = trace(args.file, args.origin)
    print_result("\n".join(link.line() for link in links))
    if any(link.state == NOT_HERE for link in links):
        print_result("files that are not here were not checked; --origin names the run or weights")
    return int(any(link.state == DIFFERS for link in links))
