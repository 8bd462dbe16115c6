"""sfda-edge train: a source model from labelled images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from runtime.glibc_malloc import keep_freed_memory
from runtime.output import print_result
from sfda_edge.cli import options


def add(commands: Any) -> None:
    """Add the command."""
    parser = options.add_command(commands, "train", "Train a source model on labelled images.", run)
    parser.add_argument("recipe", metavar="RECIPE", help="train-light, train-demo or a .toml file")
    parser.add_argument(
        "--images", required=True, metavar="IMAGES", help=f"labelled: {options.IMAGES}"
    )
    parser.add_argument("--labels", type=Path, metavar="DIR", help="for a plain folder of images")
    parser.add_argument(
        "--initial-weights",
        type=Path,
        metavar="FILE",
        help="weights to begin with, of an encoder or a whole network (default: the recipe's)",
    )
    parser.add_argument("--weights-key", metavar="KEY", help="of a file of several sets of weights")
    options.add_validation_flags(parser, "to score at the end")
    options.add_run_flags(parser, "continue the run in --out; with the same arguments")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    options.require_out_to_resume(args)
    keep_freed_memory()
    from sfda_edge.training.run import TrainRequest, run_training

    trained = run_training(
        TrainRequest(
            recipe=args.recipe,
            images=args.images,
            labels_dir=args.labels,
            validation=options.validation(args),
            initial_weights=args.initial_weights,
            weights_key=args.weights_key,
            overrides=tuple(args.overrides),
            out_dir=args.out,
            device=args.device,
            resume=args.resume,
            skip_bad=args.skip_bad,
        )
    )
    if trained.scores is not None:
        print_result(trained.scores.text())
    print_result(f"trained: {trained.path}")
