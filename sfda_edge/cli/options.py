"""Flags that several commands share, and what their values mean."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.arguments import size_hw
from sfda_edge.errors import DataError, SfdaEdgeError

if TYPE_CHECKING:
    from sfda_edge.data.validation import Validation
    from sfda_edge.models.sliding_windows import SlidingWindows
    from sfda_edge.models.source_model import ModelRequest

IMAGES = (
    "a folder, a video, a .toml file, streetsynth:source|target|clip|FOLDER, or a public data set "
    "as NAME:FOLDER/SPLIT (sfda-edge data list)"
)
Run = Callable[[argparse.Namespace], int | None]


def add_command(commands: Any, name: str, purpose: str, run: Run) -> argparse.ArgumentParser:
    """A command's parser; ``run`` gets the parsed arguments and may return an exit code."""
    parser = commands.add_parser(name, help=purpose, description=purpose)
    parser.set_defaults(run=run)
    return parser


def add_weights_argument(parser: argparse.ArgumentParser, default: str) -> None:
    """The positional argument MODEL."""
    parser.add_argument(
        "weights",
        type=Path,
        nargs="?",
        metavar="MODEL",
        help=f"a run directory or a weights file (default: {default})",
    )


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that describe a model."""
    group = parser.add_argument_group(
        "the model (weights without a model.json need --model, --label-space and --size)"
    )
    group.add_argument(
        "--model",
        metavar="NAME",
        help="espnetv2_s0.5|1.0|1.25|1.5|2.0, deeplabv3_resnet50, deeplabv2_resnet101, "
        "segformer_b1, segformer_b2, segnet_vgg16, lite0_fpn, lite0_fpn_tiny, or "
        "package.module:function",
    )
    group.add_argument(
        "--trust-model-code",
        action="store_true",
        help="import the Python code that a model.json names; --model NAME does so, too",
    )
    space = group.add_mutually_exclusive_group()
    space.add_argument(
        "--label-space",
        metavar="NAME|FILE",
        help="the network's outputs: cityscapes, cityscapes20, cityscapes16, cityscapes13, camvid, "
        "densepass13, stanford2d3d, stanford2d3d8, endovis4, endovis17, endovis18, binary or a "
        ".toml file",
    )
    space.add_argument(
        "--binary",
        action="store_const",
        const="binary",
        dest="label_space",
        help="two classes, background and foreground; the network may have one output for both",
    )
    group.add_argument("--size", type=size_hw, metavar="WxH", help="input size, such as 512x256")
    group.add_argument(
        "--map", metavar="NAME|FILE", help="join classes: cityscapes-camvid, a .toml file, or none"
    )
    group.add_argument(
        "--weights-key",
        metavar="NAME",
        help="which weights to read of a file that holds several, such as model_ema",
    )
    group.add_argument(
        "--feature-layer",
        metavar="LAYER",
        help="dotted name of the layer whose features sfda compares (default: found)",
    )
    _add_normalisation(group)


def _add_normalisation(group: argparse._ArgumentGroup) -> None:
    for name in ("mean", "std"):
        group.add_argument(
            f"--{name}",
            type=float,
            nargs="+",
            metavar="VALUE",
            help="normalisation of values in [0, 1]: three for red, green and blue, or one for a "
            "network with grey input (default: the network's own)",
        )


def add_windows_flags(
    parser: argparse.ArgumentParser, of: str = "images", default: str = ""
) -> None:
    """The flags ``--windows`` and ``--wrap``; ``of`` says what they cut."""
    parser.add_argument(
        "--windows",
        type=float,
        metavar="SCALE",
        help=f"resize {of} by SCALE and cut them into windows of the input size, for large images"
        + default,
    )
    parser.add_argument(
        "--wrap", action="store_true", help="with --windows: panoramas of 360°, the sides joined"
    )


def windows(args: argparse.Namespace) -> SlidingWindows | None:
    """What the command line says of windows; None where images are resized to the input size.

    Raises:
        DataError: ``--wrap`` without windows, or an impossible scale.
    """
    from sfda_edge.models.sliding_windows import SlidingWindows

    if args.windows is None:
        if args.wrap:
            raise DataError("--wrap joins the sides of windows; give --windows SCALE, too")
        return None
    return SlidingWindows(args.windows, wrap=args.wrap)


def add_set_flag(parser: argparse.ArgumentParser, of: str = "recipe") -> None:
    """The flag ``--set KEY=VALUE``."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help=f"change one setting of the {of}; may be repeated",
    )


def add_validation_flags(
    parser: argparse.ArgumentParser, use: str, flag: str = "--validation"
) -> None:
    """Flags that name labelled images."""
    parser.add_argument(flag, metavar="IMAGES", help=f"labelled images {use}")
    parser.add_argument(
        f"{flag}-labels",
        type=Path,
        metavar="DIR",
        help=f"label images named as those of {flag}, for a plain folder or a video",
    )
    parser.add_argument(
        f"{flag}-classes",
        metavar="NAME|FILE",
        help="what these labels mean (default: the model's classes)",
    )


def add_run_flags(parser: argparse.ArgumentParser, resume: str) -> None:
    """Flags of commands that leave a run directory."""
    add_set_flag(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="run directory (default: runs/...)")
    parser.add_argument("--resume", action="store_true", help=resume)
    add_device_flags(parser)


def add_device_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of commands that compute."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")
    parser.add_argument("--skip-bad", action="store_true", help="leave damaged samples out")


def scene_range(text: str) -> tuple[int, int]:
    """``100:20`` as (100, 20).

    Raises:
        ArgumentTypeError: it is no range.
    """
    match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
    if not match or int(match[2]) < 1:
        raise argparse.ArgumentTypeError(f"expected FIRST:COUNT such as 0:20, got '{text}'")
    return int(match[1]), int(match[2])


def model_request(args: argparse.Namespace) -> ModelRequest:
    """What the command line says of a model."""
    from sfda_edge.models.source_model import ModelRequest

    return ModelRequest(
        args.weights,
        architecture=args.model,
        label_space=args.label_space,
        size_hw=args.size,
        class_map=args.map,
        mean=tuple(args.mean) if args.mean else None,
        std=tuple(args.std) if args.std else None,
        feature_layer=args.feature_layer,
        weights_key=args.weights_key,
        trust_code=args.trust_model_code,
    )


def validation(args: argparse.Namespace, flag: str = "--validation") -> Validation | None:
    """What the command line says of labelled images.

    Raises:
        SfdaEdgeError: labels without images.
    """
    from sfda_edge.data.validation import Validation

    name = flag.lstrip("-").replace("-", "_")
    images, labels, classes = (getattr(args, f"{name}{end}") for end in ("", "_labels", "_classes"))
    if images is None:
        for end, given in (("labels", labels), ("classes", classes)):
            if given is not None:
                raise SfdaEdgeError(f"{flag}-{end} needs {flag} IMAGES")
        return None
    return Validation(images, labels, classes)


def require_out_to_resume(args: argparse.Namespace) -> None:
    """Check that a run to resume is named.

    Raises:
        SfdaEdgeError: it is not.
    """
    if args.resume and args.out is None:
        raise SfdaEdgeError("--resume needs --out with the run to continue")
