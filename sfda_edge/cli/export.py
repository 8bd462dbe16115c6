"""sfda-edge export: turn a model into a bundle, and check that it predicts the same."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.arguments import positive
from runtime.output import print_result
from sfda_edge.cli import options
from sfda_edge.errors import SfdaEdgeError

if TYPE_CHECKING:
    from export.engine.request import EngineRequest


def add(commands: Any) -> None:
    """Add the command."""
    parser = options.add_command(
        commands, "export", "Turn a model into a bundle, and check that it predicts the same.", run
    )
    options.add_weights_argument(parser, "runs/latest")
    options.add_model_flags(parser)
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument("--fp16", action="store_true", help="compute in half precision")
    precision.add_argument(
        "--int8", action="store_true", help="compute in 8 bits, calibrated on the target frames"
    )
    _add_engine_flags(parser)
    _add_output_flags(parser)
    _add_comparison_flags(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("bundle"),
        metavar="DIR",
        help="the bundle (default: %(default)s)",
    )


def _add_output_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile",
        "--target",
        default="cpu",
        metavar="NAME",
        help="where it will run: cpu, x86-cuda12, x86-cuda13, jetpack6, jetpack7, rtx (cpu)",
    )
    parser.add_argument(
        "--argmax",
        choices=("full", "coarse"),
        default="full",
        help="labels at full size, or on the network's own grid and then enlarged: faster, "
        "coarser at borders; the cost is measured (full)",
    )
    parser.add_argument("--confidence", action="store_true", help="also output confidences")
    parser.add_argument("--health", action="store_true", help="also output drift figures")
    parser.add_argument(
        "--dynamic-batch", action="store_true", help="any number of images at once, not just one"
    )


def _add_comparison_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        metavar="IMAGES",
        help="frames to compare on (default: those it was adapted to)",
    )
    of, default = "--images and --validation", " (default, without --images: as the run did)"
    options.add_windows_flags(parser, of, default)
    parser.add_argument(
        "--no-pictures",
        action="store_false",
        dest="pictures",
        help="no target frames in the bundle: they may be private",
    )
    options.add_validation_flags(parser, "on which the mIoU must not drop")
    parser.add_argument(
        "--thresholds",
        "--recipe",
        default="export",
        metavar="NAME|FILE",
        help="thresholds of the comparison (%(default)s)",
    )
    options.add_set_flag(parser, "thresholds")


def _add_engine_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        choices=("tensorrt", "tensorrt-rtx"),
        help="also build an engine here; on a device: python -m export.engine BUNDLE",
    )
    parser.add_argument(
        "--compute-capability",
        metavar="X.Y",
        help="GPU to build for instead of the one here; only with --engine tensorrt-rtx",
    )
    parser.add_argument(
        "--max-batch",
        type=positive,
        default=1,
        metavar="N",
        help="largest batch of an engine; with --dynamic-batch (%(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from export.command import ExportFlags, export_model
    from export.graph.deploy import Outputs

    _require_engine_flags(args)
    precision = "fp16" if args.fp16 else "int8" if args.int8 else "fp32"
    flags = ExportFlags(
        precision=precision,
        outputs=Outputs(args.argmax, args.confidence, args.health),
        profile=args.profile,
        dynamic_batch=args.dynamic_batch,
        images=args.images,
        windows=options.windows(args),
        validation=options.validation(args),
        thresholds=args.thresholds,
        overrides=tuple(args.overrides),
        engine=_engine_request(args) if args.engine else None,
        pictures=args.pictures,
    )
    result = export_model(options.model_request(args), flags, args.out)
    size_mb = result.size_bytes / 1e6
    print_result(f"{args.out}: {precision}, {result.num_nodes} nodes, {size_mb:.1f} MB")
    print_result("\n".join(result.lines()))
    if result.engine:
        from export.engine.request import describe

        print_result(describe(args.out, result.engine))


def _require_engine_flags(args: argparse.Namespace) -> None:
    """Before the work: an engine is of the profile's library, and needs a GPU to build for.

    Raises:
        SfdaEdgeError: flags that do not fit together.
    """
    from export.profiles import find_profile

    library = find_profile(args.profile).engine
    if args.compute_capability and not args.engine:
        raise SfdaEdgeError("--compute-capability applies to engines; add --engine")
    if args.max_batch > 1 and not (args.engine and args.dynamic_batch):
        raise SfdaEdgeError("--max-batch applies to engines; add --engine and --dynamic-batch")
    if args.compute_capability and args.engine == "tensorrt":
        raise SfdaEdgeError(
            "tensorrt builds only for the GPU that is here: leave out --compute-capability, and "
            "build on the device"
        )
    if args.engine and args.engine != library:
        found = f"has engines of {library}" if library else "has no engines"
        raise SfdaEdgeError(
            f"--profile {args.profile} {found}; --engine {args.engine} needs "
            + ("--profile rtx" if args.engine == "tensorrt-rtx" else "x86-cuda12 or a Jetson's")
        )
    if args.engine:
        from export.engine.request import find_builder

        find_builder(_engine_request(args))


def _engine_request(args: argparse.Namespace) -> EngineRequest:
    from export.engine.request import EngineRequest

    return EngineRequest(args.engine, args.compute_capability, max_batch=args.max_batch)
