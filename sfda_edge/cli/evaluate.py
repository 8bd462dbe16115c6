"""sfda-edge evaluate: score a model on labelled images, with pictures."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from runtime.glibc_malloc import keep_freed_memory
from runtime.output import print_result
from sfda_edge.cli import options

logger = logging.getLogger(__name__)


def add(commands: Any) -> None:
    """Add the command."""
    parser = options.add_command(commands, "evaluate", "Score a model on labelled images.", run)
    options.add_weights_argument(parser, "runs/latest, else the packaged model")
    options.add_model_flags(parser)
    parser.add_argument(
        "--images", metavar="IMAGES", help=f"{options.IMAGES} (default: the packaged clip)"
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="DIR",
        help="label images named as the images, for a plain folder or a video",
    )
    parser.add_argument(
        "--label-classes",
        metavar="NAME|FILE",
        help="what the labels mean (default: the model's classes)",
    )
    options.add_windows_flags(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("evaluation"),
        metavar="DIR",
        help="for JSON and pictures (default: %(default)s)",
    )
    options.add_device_flags(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    keep_freed_memory()
    from sfda_edge.api import evaluate
    from sfda_edge.models.source_model import default_weights, load_source

    request = options.model_request(args)
    weights = default_weights(request.weights, else_packaged=True)
    if args.images is None:
        logger.info("images: the packaged StreetSynth dusk clip (--images for yours)")
    windows = options.windows(args)
    model = load_source(replace(request, weights=weights))
    evaluation = evaluate(
        model,
        args.images,
        labels=args.labels,
        label_classes=args.label_classes,
        out_dir=args.out,
        windows=windows,
        device=args.device,
        skip_bad=args.skip_bad,
    )
    print_result(evaluation.text())
