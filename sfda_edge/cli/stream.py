"""sfda-edge stream: the same as ``python -m runtime.stream``, wherever it is started.

The module form looks for packages in the working directory first; this does not.
"""

from __future__ import annotations

import argparse
from typing import Any

from runtime.stream_arguments import EPILOG, add_arguments
from sfda_edge.cli import options


def add(commands: Any) -> None:
    """Add the command."""
    parser = options.add_command(
        commands, "stream", "Segment a live stream, show it, save it, measure it.", run
    )
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from runtime.output import leave
    from runtime.stream import run_program

    leave(run_program(args))
