"""sfda-edge: adapt, evaluate, export, trace, recipes, train, data, synth, demo, stream, doctor.

Nothing heavy is imported before a command has been chosen. Only the commands export, trace and
demo import the package ``export``: this is the one place where the halves meet.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from runtime.arguments import Parser
from runtime.errors import StreamError
from runtime.output import print_error, start_log, start_output
from sfda_edge import __version__
from sfda_edge.cli import (
    adapt,
    data,
    demo,
    doctor,
    evaluate,
    export,
    recipes,
    stream,
    synth,
    trace,
    train,
)
from sfda_edge.errors import SfdaEdgeError, missing_weights
from sfda_edge.own_packages import hidden

# Which extra brings a library that a command found missing.
EXTRAS = {
    **dict.fromkeys(
        (
            "torch",
            "msgspec",
            "safetensors",
            "tqdm",
            "kornia",
            "matplotlib",
            "jinja2",
            "lightning_fabric",
        ),
        "adapt",
    ),
    "tensorboard": "tensorboard",
    "cv2": "opencv",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
}
_EPILOG = """\
examples
  sfda-edge adapt                          the packaged model to the packaged dusk images
  sfda-edge export --fp16                  the latest run, as bundle/
  python -m runtime.stream camera0         that bundle on a camera
  sfda-edge demo                           all of it, with scores
"""
_WITH_EXPORT = ("export", "trace", "demo")
_COMMANDS = (adapt, evaluate, export, trace, recipes, train, data, synth, demo, stream, doctor)


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = Parser(
        prog="sfda-edge",
        description="Adapt a segmentation model to a new domain without its training data.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code: 0 done, 1 failed, 2 the user has to act."""
    start_output()
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = build_parser()
    args = parser.parse_args(given)
    args.arguments, args.parse = given, parser.parse_args
    start_log()
    try:
        if args.command in _WITH_EXPORT and (by := hidden("export")):
            raise SfdaEdgeError(by)
        _require_weights(args)
        return args.run(args) or 0
    except SfdaEdgeError as error:
        print_error(error)
        return error.exit_code
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        print_error(f"{error}: pip install 'sfda-edge[{EXTRAS[error.name]}]'")
    except (OSError, StreamError) as error:  # a full disk; the demo streams, export runs its bundle
        print_error(error)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0]
        print_error(f"{reason}; a smaller --size or --set batch_size=... needs less")
    except KeyboardInterrupt:
        resumes = "; --resume continues a run that has a checkpoint"
        print(f"stopped{resumes if 'resume' in args else ''}", file=sys.stderr)
        return 130
    return 2


def _require_weights(args: argparse.Namespace) -> None:
    """Look before torch is imported, which takes seconds.

    Raises:
        CheckpointError: there is no such file or directory.
    """
    weights = getattr(args, "weights", None)
    if weights is not None and not weights.exists():
        raise missing_weights(weights)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Torch's messages, on a GPU and on a CPU."""
    return any(words in str(error).lower() for words in ("out of memory", "can't allocate memory"))


if __name__ == "__main__":
    sys.exit(main())
