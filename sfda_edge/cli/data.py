"""sfda-edge data: which public data sets are read, and what of one is on this disk."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.arguments import positive
from runtime.output import print_result
from sfda_edge.cli import options
from sfda_edge.errors import DataError

if TYPE_CHECKING:
    from sfda_edge.data.check import SplitCheck
    from sfda_edge.data.datasets import Dataset


def add(commands: Any) -> None:
    """Add the command."""
    purpose = "List public data sets, or check one on this disk."
    parser = commands.add_parser("data", help=purpose, description=purpose)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    options.add_command(actions, "list", "Say what each data set is and where it is found.", _list)
    check = options.add_command(actions, "check", "Look for what is missing or broken.", _check)
    check.add_argument("name", metavar="NAME", help="a data set of sfda-edge data list")
    check.add_argument("folder", type=Path, metavar="DIR", help="the official download, unpacked")
    check.add_argument("--split", metavar="SPLIT", help="one split (default: all)")
    check.add_argument(
        "--read",
        type=positive,
        default=200,
        metavar="N",
        help="read this many images of each split, spread evenly (default: %(default)s)",
    )
    check.add_argument("--read-all", action="store_true", help="read every image")
    check.add_argument(
        "--out",
        type=Path,
        default=Path("data-check"),
        metavar="DIR",
        help="for a picture of each split (default: %(default)s)",
    )


def _list(_args: argparse.Namespace) -> None:
    from sfda_edge.data.datasets import DATASETS

    print_result("\n\n".join(_described(dataset) for dataset in DATASETS.values()))


def _described(dataset: Dataset) -> str:
    splits = ", ".join(
        name if split.num_images is None else f"{name} ({split.num_images})"
        for name, split in dataset.splits.items()
    )
    rows = {
        "size": dataset.size,
        "classes": str(dataset.label_space.num_classes),
        "splits": splits,
        "licence": dataset.licence,
        "from": dataset.address,
        "note": dataset.note,
    }
    lines = [f"  {title:<9}{text}" for title, text in rows.items() if text]
    return "\n".join([f"{dataset.name}: {dataset.title}", *lines])


def _check(args: argparse.Namespace) -> int:
    """Check all splits that are there; exit code 1 where something is missing or broken.

    Raises:
        DataError: the data set is unknown, or nothing of it is there.
    """
    from sfda_edge.data.check import check_split
    from sfda_edge.data.datasets import DATASETS
    from sfda_edge.runs.progress import progress_bar

    if args.name not in DATASETS:
        raise DataError(f"unknown data set '{args.name}'; known: {', '.join(DATASETS)}")
    dataset = DATASETS[args.name]
    if not args.folder.exists():
        raise DataError(f"{args.folder} does not exist")
    most = None if args.read_all else args.read
    checks = []
    for split_name in [args.split] if args.split else dataset.splits:
        bar = progress_bar(f"{dataset.name} {split_name}")
        found = check_split(dataset, args.folder, split_name, most_read=most, progress=bar)
        if found is None:
            print_result(f"{dataset.name} {split_name}: not there")
            continue
        checks.append(found)
        print_result(found.text())
        _write_picture(found, args.out)
    if not checks:
        layouts = next(iter(dataset.splits.values())).layouts
        expected = " or ".join(layout.images for layout in layouts)
        raise DataError(f"{args.folder} holds nothing of {dataset.name}; expected {expected} there")
    return 0 if all(found.complete for found in checks) else 1


def _write_picture(found: SplitCheck, out_dir: Path) -> None:
    from sfda_edge.report.data_check import write_data_picture

    if found.examples:
        name = f"{found.found.dataset.name}-{found.found.split_name}.jpg"
        write_data_picture(out_dir / name, found)
        print_result(f"  picture      {out_dir / name}")
