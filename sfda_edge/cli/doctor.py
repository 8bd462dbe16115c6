"""sfda-edge doctor: what works here, and how to fix the rest."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sfda_edge.cli import options


def add(commands: Any) -> None:
    """Add the command."""
    parser = options.add_command(
        commands, "doctor", "Check what works here, and how to fix the rest.", run
    )
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="check this bundle, too")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of text")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from runtime.doctor import diagnose

    return diagnose(args.bundle, args.json)
