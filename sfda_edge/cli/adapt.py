"""sfda-edge adapt: a model and unlabeled images in, a run directory out."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.glibc_malloc import keep_freed_memory
from runtime.output import print_result
from sfda_edge.cli import options
from sfda_edge.errors import CheckpointError
from sfda_edge.selection.config import KEEP, SelectionConfig

logger = logging.getLogger(__name__)
SOURCE_VALIDATION = "--source-validation"


def add(commands: Any) -> None:
    """Add the command."""
    parser = options.add_command(
        commands, "adapt", "Adapt a model to unlabeled target images.", run
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="source model: weights or a run directory (default: the packaged one)",
    )
    options.add_model_flags(parser)
    parser.add_argument(
        "--images",
        metavar="IMAGES",
        help=f"target images: {options.IMAGES} (default: packaged dusk frames)",
    )
    options.add_windows_flags(parser, "--images and --validation")
    parser.add_argument(
        "--method",
        metavar="NAME",
        help="multiview, sfda, bn, tent, maxsquare or selftrain (default: multiview)",
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME|FILE",
        help="settings (default: the method's own); sfda-edge recipes lists them",
    )
    _add_scored(parser)
    parser.add_argument(
        "--keep",
        choices=KEEP,
        default="best",
        help="which model to return: the checkpoint with the best label-free score, the last one, "
        "or the source (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        default="fp32",
        help="compute precision; fp16 needs a CUDA GPU (default: %(default)s)",
    )
    parser.add_argument("--compile", action="store_true", dest="compiled", help="use torch.compile")
    parser.add_argument("--tensorboard", action="store_true", help="also write RUN/tensorboard")
    options.add_run_flags(
        parser, "continue the run in --out, with the arguments that it was started with"
    )


def _add_scored(parser: argparse.ArgumentParser) -> None:
    """Flags of labelled images that the model is scored on before and after."""
    options.add_validation_flags(parser, "to score before and after; not used for training")
    options.add_validation_flags(
        parser,
        "of the source domain, to score before and after: what the model has forgotten",
        flag=SOURCE_VALIDATION,
    )


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    options.require_out_to_resume(args)
    keep_freed_memory()
    from sfda_edge.adaptation.request import AdaptRequest
    from sfda_edge.adaptation.run import run_adaptation
    from sfda_edge.runs.distributed import leave_group, rank

    if args.resume:
        args = _as_started(args, args.parse)
    request = AdaptRequest(
        model=options.model_request(args),
        images=args.images,
        windows=options.windows(args),
        method=args.method,
        recipe=args.recipe,
        overrides=tuple(args.overrides),
        selection=SelectionConfig(keep=args.keep),
        validation=options.validation(args),
        source_validation=options.validation(args, SOURCE_VALIDATION),
        out_dir=args.out,
        device=args.device,
        precision=args.precision,
        compiled=args.compiled,
        tensorboard=args.tensorboard,
        resume=args.resume,
        skip_bad=args.skip_bad,
        arguments=tuple(args.arguments),
    )
    finished = run_adaptation(request)
    if rank() == 0:
        print_result(f"adapted: {finished.path}")
    leave_group()


def _as_started(
    args: argparse.Namespace, parse: Callable[[list[str]], argparse.Namespace]
) -> argparse.Namespace:
    """The arguments that a run was started with, and those given now.

    Code that only the run's record names is not imported: the record may be of somebody else.

    Raises:
        RunError: there is nothing to resume.
        CheckpointError: the record names code that was not confirmed now.
    """
    from sfda_edge.runs.directory import resumable_run

    recorded = resumable_run(args.out).get("arguments")
    if not recorded:
        logger.warning(
            "%s does not record the arguments that it was started with; give all of them, "
            "--validation, --source-validation, --tensorboard, --compile and --skip-bad too",
            args.out,
        )
        return args
    again = parse([*map(str, recorded), *args.arguments[1:]])
    names_code = ":" in (again.model or "")
    if names_code and again.model != args.model and not args.trust_model_code:
        raise CheckpointError(
            f"{args.out} was started with --model {again.model}, which imports Python code. If you "
            "trust it, repeat the flag to resume"
        )
    again.trust_model_code = args.trust_model_code
    again.arguments = recorded
    return again
