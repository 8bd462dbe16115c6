"""python -m benchmarks.protocol: a published row on your copy of its data sets.

Trains the source model, or takes given weights; adapts it; scores it at the labels' own size; and
prints the figures beside the published ones. Begun again, it continues where it was. With torchrun
several GPUs adapt, after --source-only has trained the source model in one process.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measuring.program import exit_code_of
from benchmarks.protocol.file import Protocol, load_protocol, protocol_names
from benchmarks.protocol.table import protocol_table
from benchmarks.records import write_record
from runtime.arguments import size_hw
from runtime.glibc_malloc import keep_freed_memory
from runtime.output import print_result, start_log, start_output
from sfda_edge.cli.options import add_windows_flags, windows
from sfda_edge.data.datasets import DATASETS
from sfda_edge.data.datasets.opening import find_split, missing_labels_text
from sfda_edge.errors import DataError


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.protocol", description="Run a published adaptation protocol."
    )
    names = protocol_names()
    parser.add_argument("name", metavar="NAME", choices=names, help=", ".join(names))
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="holds a folder for each data set"
    )
    parser.add_argument(
        "--data-set",
        action="append",
        default=[],
        type=_named_folder,
        metavar="NAME=DIR",
        help="where one of them is instead",
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="a trained source model")
    parser.add_argument(
        "--initial-weights",
        type=Path,
        metavar="FILE",
        help="weights that training of the source begins with",
    )
    parser.add_argument("--weights-key", metavar="KEY", help="of a file of several sets of weights")
    parser.add_argument(
        "--size", type=size_hw, metavar="WxH", help="input size of adaptation and scoring"
    )
    add_windows_flags(parser)
    parser.add_argument("--method", metavar="NAME", help="another method, with its own recipe")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument(
        "--train-set", action="append", default=[], metavar="KEY=VALUE", help="of source training"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="(default: protocols/NAME)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument(
        "--test-export",
        action="store_true",
        help="write label maps of the test split, as its server takes them",
    )
    parser.add_argument("--source-only", action="store_true", help="train the source model alone")
    parser.add_argument("--skip-bad", action="store_true", help="leave damaged samples out")
    parser.add_argument("--dry-run", action="store_true", help="say what it needs, and stop")
    return parser


def _named_folder(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not folder or name not in DATASETS:
        raise argparse.ArgumentTypeError(
            f"expected NAME=DIR with a NAME of {', '.join(DATASETS)}, got '{text}'"
        )
    return name, Path(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    start_output()
    args = build_parser().parse_args(arguments)
    start_log()
    keep_freed_memory()
    return exit_code_of(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    if args.source_only and args.weights is not None:
        raise DataError(
            "--source-only trains a source model, and --weights is one: give one of both"
        )
    if args.initial_weights is not None and args.weights is not None:
        raise DataError(
            "--initial-weights is for a source model that is trained here, and --weights is one: "
            "give one of both"
        )
    if args.initial_weights is not None and not args.initial_weights.is_file():
        raise DataError(f"--initial-weights {args.initial_weights} does not exist")
    if args.weights_key is not None and args.weights is None and args.initial_weights is None:
        raise DataError(
            f"--weights-key {args.weights_key} names a part of a file: give --weights or "
            "--initial-weights, too"
        )
    windows(args)  # flags that do not fit, before the work
    protocol = load_protocol(args.name)
    specs = {split: _spec(split, args) for split in _splits(protocol, args)}
    if args.dry_run:
        from benchmarks.protocol.cost import cost_text

        text, complete = cost_text(protocol, specs, args)
        print_result(text)
        return 0 if complete else 1
    _require_data(protocol, specs)
    from benchmarks.protocol.run import run_protocol

    out_dir = args.out or Path("protocols") / args.name
    result = run_protocol(protocol, specs, args, out_dir)
    if result is None:
        return 0
    method = args.method or "sfda"
    write_record(out_dir / f"{method}.json", {"protocol": args.name, "method": method, **result})
    print_result(protocol_table(protocol, *result["validation"]))
    print_result(f"{result['num_images']} target images; returned: {result['returned']}; {out_dir}")
    return 0


def _splits(protocol: Protocol, args: argparse.Namespace) -> list[str]:
    """What is read: the source's images only where a source model is trained.

    Raises:
        DataError: a test split is wanted and there is none.
    """
    splits = [protocol.target, protocol.scored]
    if args.weights is None:
        splits.insert(0, protocol.source)
    if args.test_export:
        if protocol.test is None:
            raise DataError(f"protocol '{args.name}' has no split whose labels a server holds back")
        splits.append(protocol.test)
    return splits


def _spec(split: str, args: argparse.Namespace) -> str:
    """``DATASET/SPLIT`` as ``open_images`` takes it."""
    name, _, part = split.partition("/")
    folder = dict(args.data_set).get(name, args.data / name)
    return f"{name}:{folder}/{part}"


def _require_data(protocol: Protocol, specs: dict[str, str]) -> None:
    """Look for every split before hours of work.

    Raises:
        DataError: one is not there, or has no labels where they are needed.
    """
    for split, spec in specs.items():
        name, _, where = spec.partition(":")
        found = find_split(DATASETS[name], where)
        if split in (protocol.source, protocol.scored):
            if found.without_labels:
                raise DataError(f"{spec}: {missing_labels_text(found)}")
            if not any(sample.label_map for sample in found.samples):
                raise DataError(f"{spec} has no labels; {found.label_template} was expected")


if __name__ == "__main__":
    sys.exit(main())
