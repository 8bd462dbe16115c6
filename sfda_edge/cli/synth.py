"""sfda-edge synth: render StreetSynth scenes with exact labels."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from runtime.arguments import positive
from runtime.output import print_result
from sfda_edge.cli import options
from sfda_edge.errors import DataError


def add(commands: Any) -> None:
    """Add the command."""
    parser = options.add_command(
        commands, "synth", "Render StreetSynth scenes with exact labels.", run
    )
    parser.add_argument(
        "--style", default="clear", help="clear, dusk or rain (default: %(default)s)"
    )
    parser.add_argument(
        "--scenes",
        type=options.scene_range,
        default=(0, 20),
        metavar="FIRST:COUNT",
        help="which scenes; the same number is the same street (default: 0:20)",
    )
    parser.add_argument("--frames", type=positive, default=1, help="frames of each scene (1)")
    parser.add_argument("--clip", action="store_true", help="one video instead of single images")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")


def run(args: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        DataError: panda3d is missing, cannot draw here, or the folder is not empty.
    """
    try:
        from sfda_edge.streetsynth.render import SceneRange, render_clip, render_images
    except ModuleNotFoundError as error:
        if error.name not in ("panda3d", "direct"):
            raise
        raise DataError("rendering needs panda3d: pip install 'sfda-edge[synth]'") from None
    from runtime.images import require_encodable
    from sfda_edge.runs.progress import progress_bar

    require_encodable(args.out)
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise DataError(f"{args.out} is not empty; choose another --out")
    first, count = args.scenes
    scenes = SceneRange(first, count, args.frames)
    render = render_clip if args.clip else render_images
    bar = progress_bar(f"render {args.style}", count)
    frames = render(args.style, scenes, args.out, progress=bar)
    print_result(f"rendered {frames} frames to {args.out}")
