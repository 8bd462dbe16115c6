"""sfda-edge: adapt, evaluate, export, trace, recipes, train, synth, demo, doctor.

Nothing heavy is imported before a command has been chosen. Only the commands export, trace and
demo know the package ``export``: this is the one place where the halves meet.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.arguments import positive
from runtime.errors import StreamError
from runtime.output import say
from sfda_edge import __version__
from sfda_edge.errors import SfdaEdgeError
from sfda_edge.runs.glibc_malloc import keep_freed_memory

if TYPE_CHECKING:
    from export.engine.request import EngineRequest
    from sfda_edge.data.validation import Validation
    from sfda_edge.models.source_model import ModelFlags

_IMAGES = (
    "a folder, a video, camvid:FOLDER, cityscapes:FOLDER, or streetsynth:source|target|clip|FOLDER"
)
# Which extra brings a library that a command found missing.
EXTRAS = {
    "torch": "adapt",
    "msgspec": "adapt",
    "safetensors": "adapt",
    "tqdm": "adapt",
    "kornia": "adapt",
    "matplotlib": "adapt",
    "jinja2": "adapt",
    "lightning_fabric": "adapt",
    "tensorboard": "tensorboard",
    "tomli": "adapt",
    "cv2": "opencv",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
}
logger = logging.getLogger(__name__)
_EPILOG = """\
examples
  sfda-edge adapt                          the packaged model to the packaged dusk images
  sfda-edge export --fp16                  the latest run, as bundle/
  python -m runtime.stream camera0         that bundle on a camera
  sfda-edge demo                           all of it, with scores
"""


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="sfda-edge",
        description="Adapt a segmentation model to a new domain without its training data.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_adapt(commands)
    _add_evaluate(commands)
    _add_export(commands)
    _add_trace(commands)
    _add_recipes(commands)
    _add_train(commands)
    _add_synth(commands)
    _add_demo(commands)
    _add_doctor(commands)
    return parser


def _add(commands, name: str, purpose: str, run: Callable) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=purpose, description=purpose)
    parser.set_defaults(run=run)
    return parser


def _add_adapt(commands) -> None:
    parser = _add(commands, "adapt", "Adapt a model to unlabeled target images.", _adapt)
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="source model: weights or a run directory (default: the packaged one)",
    )
    _add_model_flags(parser)
    parser.add_argument(
        "--images",
        metavar="IMAGES",
        help=f"target images: {_IMAGES} (default: packaged dusk frames)",
    )
    parser.add_argument(
        "--method",
        metavar="NAME",
        help="default, sfda, bn, tent, maxsquare or selftrain (default: default)",
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME|FILE",
        help="settings (default: the method's own); sfda-edge recipes lists them",
    )
    _add_validation_flags(parser, "to score before and after; nothing is learnt from them")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        default="fp32",
        help="of the networks' arithmetic; fp16 needs a CUDA GPU (default: %(default)s)",
    )
    parser.add_argument("--compile", action="store_true", dest="compiled", help="use torch.compile")
    parser.add_argument("--tensorboard", action="store_true", help="also write RUN/tensorboard")
    _add_run_flags(parser, "go on with the run in --out, with the arguments that it was begun with")


def _add_recipes(commands) -> None:
    parser = _add(commands, "recipes", "List the recipes, or print one to copy.", _recipes)
    parser.add_argument("name", nargs="?", metavar="NAME", help="print this one")


def _add_evaluate(commands) -> None:
    parser = _add(commands, "evaluate", "Score a model on labelled images.", _evaluate)
    _add_weights_argument(parser, "runs/latest, else the packaged model")
    _add_model_flags(parser)
    parser.add_argument(
        "--images", metavar="IMAGES", help=f"{_IMAGES} (default: the packaged clip)"
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="DIR",
        help="index images named as the images, for a plain folder or a video",
    )
    parser.add_argument(
        "--label-classes",
        metavar="NAME|FILE",
        help="what the labels mean (default: the model's classes)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("evaluation"),
        metavar="DIR",
        help="for JSON and pictures (default: %(default)s)",
    )
    _add_device_flags(parser)


def _add_export(commands) -> None:
    parser = _add(commands, "export", "Turn a model into a bundle, and prove it equal.", _export)
    _add_weights_argument(parser, "runs/latest")
    _add_model_flags(parser)
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument("--fp16", action="store_true", help="compute in half precision")
    precision.add_argument(
        "--int8", action="store_true", help="compute in 8 bits, calibrated on the target frames"
    )
    parser.add_argument(
        "--engine",
        choices=("tensorrt", "tensorrt-rtx"),
        help="also build an engine here; on a device: python -m export.engine BUNDLE",
    )
    parser.add_argument(
        "--compute-capability",
        metavar="X.Y",
        help="GPU to build for instead of the one here; with --engine tensorrt-rtx alone",
    )
    parser.add_argument(
        "--max-batch",
        type=positive,
        default=1,
        metavar="N",
        help="most images at once of an engine; with --dynamic-batch (%(default)s)",
    )
    parser.add_argument(
        "--target",
        default="cpu",
        metavar="PROFILE",
        help="where it will run: cpu, x86-cuda12, x86-cuda13, jetpack6, jetpack7, rtx (cpu)",
    )
    parser.add_argument(
        "--argmax",
        choices=("full", "coarse"),
        default="full",
        help="labels at full size, or on the network's own grid and then enlarged: faster, "
        "coarser at borders; what it costs is measured (full)",
    )
    parser.add_argument("--confidence", action="store_true", help="answer with confidences, too")
    parser.add_argument("--health", action="store_true", help="answer with drift figures, too")
    parser.add_argument(
        "--dynamic-batch", action="store_true", help="any number of images at once, not just one"
    )
    parser.add_argument(
        "--images",
        metavar="IMAGES",
        help="frames to prove it on (default: those it was adapted to)",
    )
    parser.add_argument(
        "--no-pictures",
        action="store_false",
        dest="pictures",
        help="no target frames in the bundle: they may be private",
    )
    _add_validation_flags(parser, "on which mIoU may not fall")
    parser.add_argument(
        "--recipe",
        default="export",
        metavar="NAME|FILE",
        help="the gate's thresholds (%(default)s)",
    )
    _add_set_flag(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("bundle"),
        metavar="DIR",
        help="the bundle (default: %(default)s)",
    )


def _add_trace(commands) -> None:
    parser = _add(
        commands, "trace", "Say where a file came from, and check every hash on the way.", _trace
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


def _add_train(commands) -> None:
    parser = _add(commands, "train", "Train a source model on labelled images.", _train)
    parser.add_argument("recipe", metavar="RECIPE", help="train-light, train-demo or a .toml file")
    parser.add_argument("--images", required=True, metavar="IMAGES", help=f"labelled: {_IMAGES}")
    parser.add_argument("--labels", type=Path, metavar="DIR", help="for a plain folder of images")
    _add_validation_flags(parser, "to score at the end")
    _add_run_flags(parser, "go on with the run in --out; with the same arguments")


def _add_synth(commands) -> None:
    parser = _add(commands, "synth", "Render StreetSynth scenes with exact labels.", _synth)
    parser.add_argument(
        "--style", default="clear", help="clear, dusk or rain (default: %(default)s)"
    )
    parser.add_argument(
        "--scenes",
        type=scene_range,
        default=(0, 20),
        metavar="FIRST:COUNT",
        help="which scenes; the same number is the same street (default: 0:20)",
    )
    parser.add_argument("--frames", type=positive, default=1, help="frames of each scene (1)")
    parser.add_argument("--clip", action="store_true", help="one video instead of single images")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")


def _add_demo(commands) -> None:
    parser = _add(commands, "demo", "Adapt, score, export and stream the packaged data.", _demo)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo"),
        metavar="DIR",
        help="a new or earlier demo's folder (default: %(default)s)",
    )


def _add_doctor(commands) -> None:
    parser = _add(commands, "doctor", "Say what works here, and how to mend the rest.", _doctor)
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="check this bundle, too")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of text")


def _add_weights_argument(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "weights",
        type=Path,
        nargs="?",
        metavar="MODEL",
        help=f"a run directory or a weights file (default: {default})",
    )


def _add_model_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "the model (weights without a model.json need --model, --label-space and --size)"
    )
    group.add_argument(
        "--model",
        metavar="NAME",
        help="espnetv2_s0.5|1.0|1.25|1.5|2.0, deeplabv3_resnet50, "
        "deeplabv2_resnet101, segnet_vgg16, lite0_fpn, lite0_fpn_tiny, or package.module:function",
    )
    group.add_argument(
        "--label-space",
        metavar="NAME|FILE",
        help="the network's outputs: cityscapes, cityscapes20, cityscapes16, cityscapes13, camvid, "
        "densepass13, stanford2d3d8, endovis4 or a .toml file",
    )
    group.add_argument("--size", type=size_hw, metavar="WxH", help="input size, such as 512x256")
    group.add_argument(
        "--map", metavar="NAME|FILE", help="join classes: cityscapes-camvid, a .toml file, or none"
    )
    group.add_argument(
        "--feature-layer",
        metavar="LAYER",
        help="dotted name of the layer whose features sfda compares (default: found)",
    )
    for name in ("mean", "std"):
        group.add_argument(
            f"--{name}",
            type=float,
            nargs="+",
            metavar="VALUE",
            help="normalisation of values in [0, 1]: three for red, green and blue, or one for a "
            "network that is fed grey (default: the network's own)",
        )


def _add_set_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change one setting of the recipe; may be repeated",
    )


def _add_validation_flags(parser: argparse.ArgumentParser, use: str) -> None:
    parser.add_argument("--validation", metavar="IMAGES", help=f"labelled images {use}")
    parser.add_argument(
        "--validation-labels",
        type=Path,
        metavar="DIR",
        help="index images named as those of --validation, for a plain folder or a video",
    )


def _validation(args: argparse.Namespace) -> Validation | None:
    from sfda_edge.data.validation import Validation

    if args.validation is None:
        if args.validation_labels is not None:
            raise SfdaEdgeError("--validation-labels goes with --validation IMAGES")
        return None
    return Validation(args.validation, args.validation_labels)


def _add_run_flags(parser: argparse.ArgumentParser, how_it_resumes: str) -> None:
    _add_set_flag(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="run directory (default: runs/…)")
    parser.add_argument("--resume", action="store_true", help=how_it_resumes)
    _add_device_flags(parser)


def _add_device_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1 … (default: auto)"
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave damaged samples out")


def size_hw(text: str) -> tuple[int, int]:
    """``512x256`` (width x height) as (256, 512)."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not match or "0" in match.groups():
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 512x256, got '{text}'")
    return int(match[2]), int(match[1])


def scene_range(text: str) -> tuple[int, int]:
    """``100:20`` as (100, 20)."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or int(match[2]) < 1:
        raise argparse.ArgumentTypeError(f"expected FIRST:COUNT such as 0:20, got '{text}'")
    return int(match[1]), int(match[2])


def _model_flags(args: argparse.Namespace) -> ModelFlags:
    from sfda_edge.models.source_model import ModelFlags

    return ModelFlags(
        args.weights,
        args.model,
        args.label_space,
        args.size,
        args.map,
        tuple(args.mean) if args.mean else None,
        tuple(args.std) if args.std else None,
        args.feature_layer,
    )


def _require_out_to_resume(args: argparse.Namespace) -> None:
    if args.resume and args.out is None:
        raise SfdaEdgeError("--resume needs --out with the run to go on with")


def _as_begun(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments that a run was begun with, and those given now.

    Raises:
        RunError: there is nothing to resume.
    """
    from sfda_edge.runs.directory import resumable_run

    begun = resumable_run(args.out).get("arguments")
    if not begun:
        logger.warning(
            "%s does not say with what arguments it was begun; give all of them, --validation, "
            "--tensorboard, --compile and --skip-bad too",
            args.out,
        )
        return args
    again = build_parser().parse_args([*map(str, begun), *args.arguments[1:]])
    again.arguments = begun
    return again


def _adapt(args: argparse.Namespace) -> None:
    _require_out_to_resume(args)
    keep_freed_memory()
    from sfda_edge.adaptation import run as adapt
    from sfda_edge.training.distributed import part, rank

    if args.resume:
        args = _as_begun(args)

    out_dir = adapt.run(
        adapt.AdaptRequest(
            _model_flags(args),
            args.method,
            args.recipe,
            tuple(args.overrides),
            args.images,
            _validation(args),
            args.out,
            args.device,
            args.precision,
            args.compiled,
            args.tensorboard,
            args.resume,
            args.skip_bad,
            tuple(args.arguments),
        )
    )
    if rank() == 0:
        say(f"adapted: {out_dir}")
    part()


def _evaluate(args: argparse.Namespace) -> None:
    keep_freed_memory()
    from sfda_edge.evaluation import run as evaluate

    evaluation = evaluate.run(
        evaluate.EvaluateRequest(
            _model_flags(args),
            args.images,
            args.labels,
            args.label_classes,
            args.out,
            args.device,
            args.skip_bad,
        )
    )
    say(evaluation.text())


def _export(args: argparse.Namespace) -> None:
    from export.command import ExportFlags, export_model
    from export.graph.deploy import Answers

    _require_engine_flags(args)
    precision = "fp16" if args.fp16 else "int8" if args.int8 else "fp32"
    flags = ExportFlags(
        precision,
        Answers(args.argmax, args.confidence, args.health),
        args.target,
        args.dynamic_batch,
        args.images,
        _validation(args),
        args.recipe,
        tuple(args.overrides),
        _engine_request(args) if args.engine else None,
        args.pictures,
    )
    result = export_model(_model_flags(args), flags, args.out)
    say(f"{args.out}: {precision}, {result.num_nodes} nodes, {result.size_bytes / 1e6:.1f} MB")
    say("\n".join(result.lines()))
    if result.engine:
        from export.engine.request import describe

        say(describe(args.out, result.engine))


def _trace(args: argparse.Namespace) -> int:
    from export.bundle.trace import DIFFERS, NOT_HERE, trace

    links = trace(args.file, args.origin)
    say("\n".join(link.line() for link in links))
    if any(link.state == NOT_HERE for link in links):
        say("what is not here was not checked; --origin names the run or the weights")
    return int(any(link.state == DIFFERS for link in links))


def _require_engine_flags(args: argparse.Namespace) -> None:
    """Before the work: an engine is of the target's library, and a GPU to build for needs one."""
    from export.profiles import target_profile

    library = target_profile(args.target).engine
    if args.compute_capability and not args.engine:
        raise SfdaEdgeError("--compute-capability says what to build an engine for: add --engine")
    if args.max_batch > 1 and not (args.engine and args.dynamic_batch):
        raise SfdaEdgeError("--max-batch is of engines: it wants --engine and --dynamic-batch")
    if args.compute_capability and args.engine == "tensorrt":
        raise SfdaEdgeError(
            "tensorrt builds for the GPU that is here alone: leave out "
            "--compute-capability, and build on the device"
        )
    if args.engine and args.engine != library:
        found = f"has engines of {library}" if library else "has no engines"
        raise SfdaEdgeError(
            f"--target {args.target} {found}; --engine {args.engine} wants "
            + ("--target rtx" if args.engine == "tensorrt-rtx" else "x86-cuda12 or a Jetson's")
        )
    if args.engine:
        from export.engine.request import find_builder

        find_builder(_engine_request(args))


def _engine_request(args: argparse.Namespace) -> EngineRequest:
    from export.engine.request import EngineRequest

    return EngineRequest(args.engine, args.compute_capability, max_batch=args.max_batch)


def _recipes(args: argparse.Namespace) -> None:
    from sfda_edge.recipes.recipe import describe_recipes, read_recipe_text

    say(read_recipe_text(args.name) if args.name else describe_recipes(), end="")


def _train(args: argparse.Namespace) -> None:
    _require_out_to_resume(args)
    keep_freed_memory()
    from sfda_edge.training import run as train

    out_dir = train.run(
        train.TrainRequest(
            args.recipe,
            args.images,
            args.labels,
            _validation(args),
            tuple(args.overrides),
            args.out,
            args.device,
            args.resume,
            args.skip_bad,
        )
    )
    say(f"trained: {out_dir}")


def _synth(args: argparse.Namespace) -> None:
    from sfda_edge.cli import synth

    first, count = args.scenes
    frames = synth.run(
        synth.SynthRequest(args.style, first, count, args.frames, args.out, args.clip)
    )
    say(f"rendered {frames} frames to {args.out}")


def _demo(args: argparse.Namespace) -> None:
    keep_freed_memory()
    from export.command import ExportFlags, export_model
    from sfda_edge.cli import demo

    demo.run(args.out, lambda model, out_dir: export_model(model, ExportFlags(), out_dir))


def _doctor(args: argparse.Namespace) -> int:
    from runtime.doctor import diagnose

    return diagnose(args.bundle, args.json)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Torch's ways to say it, on a GPU and on a CPU."""
    return any(words in str(error).lower() for words in ("out of memory", "can't allocate memory"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code: 0 done, 1 failed, 2 the user has to act."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    args = build_parser().parse_args(given)
    args.arguments = given
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s  %(message)s", datefmt="%H:%M:%S"
    )
    try:
        code = args.run(args)
    except SfdaEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        print(f"error: {error}: pip install 'sfda-edge[{EXTRAS[error.name]}]'", file=sys.stderr)
        return 2
    except OSError as error:  # a disk that is full, a file that may not be read
        print(f"error: {error}", file=sys.stderr)
        return 2
    except StreamError as error:  # the demo streams, and export runs what it has written
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        print(
            f"error: {str(error).partition(chr(10))[0]}; a smaller --size or --set batch_size=… "
            "takes less",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        resumes = "; --resume goes on with a run that had a checkpoint"
        print(f"stopped{resumes if 'resume' in args else ''}", file=sys.stderr)
        return 130
    return code or 0


if __name__ == "__main__":
    sys.exit(main())
