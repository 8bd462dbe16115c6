"""The rows of ``benchmarks.precisions``: export a run in every precision, and time the results."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import time_in_turn
from export.command import ExportFlags, export_model
from export.errors import ExportError
from export.result import ExportResult
from runtime.backends import open_backend
from runtime.bundle.manifest import read_manifest
from runtime.images import resize_image
from sfda_edge.data import open_images
from sfda_edge.data.loading import read_all
from sfda_edge.data.validation import Validation
from sfda_edge.errors import RunError
from sfda_edge.models.source_model import ModelRequest
from sfda_edge.runs.directory import read_run

_FRAMES = 8


def export_row(run: Path, precision: str, args: argparse.Namespace) -> dict[str, Any]:
    """Export a run in a precision, and say what came of it; all but the time.

    Raises:
        RunError: there is no run.
    """
    row = _begun(run, args) | {"precision": precision, "scored_on": args.validation}
    validation = args.validation and Validation(args.validation, args.validation_labels)
    flags = ExportFlags(
        precision=precision,
        profile=args.profile,
        validation=validation,
        overrides=tuple(args.overrides),
    )
    out = _bundle_dir(row, args)
    try:
        result = export_model(ModelRequest(run, size_hw=args.size), flags, out)
    except ExportError as error:
        return row | {"failed": str(error)}
    return row | _figures(result) | {"sha256": _sha256(out)}


def timed_rows(
    run: Path, args: argparse.Namespace, recorded: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The recorded rows of a run, with the times of their bundles, taken in turn.

    Raises:
        RunError: there is no run, or no row of it, or a row is of another bundle.
        ManifestError: a bundle is gone or damaged.
    """
    wanted = _begun(run, args)
    rows = [row for row in recorded if wanted.items() <= row.items()]
    rows = [row for row in rows if row["precision"] in args.precisions]
    if not rows:
        raise RunError(f"{args.out} has no rows of {run}; measure it without --time-again first")
    exported = [row for row in rows if "failed" not in row]
    for row in exported:
        if row.get("sha256") != _sha256(_bundle_dir(row, args)):
            raise RunError(
                f"{_bundle_dir(row, args)} is not the bundle that {args.out} has figures of; "
                "measure it without --time-again"
            )
    bundles = {row["precision"]: _bundle_dir(row, args) for row in exported}
    times_ms = _times_ms(bundles, read_run(run)["inputs"]["images"], args)
    for row in exported:
        row["p50_ms"] = round(times_ms[row["precision"]], 2)
        row.pop("times_fp32", None)  # a ratio is of one run
        if "fp32" in times_ms:
            row["times_fp32"] = round(times_ms[row["precision"]] / times_ms["fp32"], 3)
    return rows


def _begun(run: Path, args: argparse.Namespace) -> dict[str, Any]:
    """What all rows of a run have in common."""
    facts = read_run(run).get("inputs", {})
    if "method" not in facts:
        raise RunError(f"{run} is not a run of sfda-edge adapt")
    size = facts["size"] if args.size is None else f"{args.size[1]}x{args.size[0]}"
    row = {"network": facts["model"], "size": size, "method": facts["method"]}
    return row | {"profile": args.profile}


def _bundle_dir(row: dict[str, Any], args: argparse.Namespace) -> Path:
    work: Path = args.work
    return work / f"{row['network']}-{row['size']}-{row['precision']}"


def _sha256(bundle_dir: Path) -> str:
    manifest = read_manifest(bundle_dir)
    return manifest.sha256[manifest.model_file]


def _figures(result: ExportResult) -> dict[str, Any]:
    parity, scores, rounding = result.parity, result.scores, result.rounding
    row: dict[str, Any] = {
        "bytes": result.size_bytes,
        "nodes": result.num_nodes,
        "label_agreement": round(parity.label_agreement, 6),
        "rounded_agreement": round(rounding.label_agreement, 6) if rounding else None,
        "lowest_class": f"{parity.lowest_class} {parity.class_iou[parity.lowest_class]:.3f}",
        "miou_before": scores and scores.before and round(scores.before, 2),
        "miou_torch": scores and round(scores.model, 2),
        "miou": scores and round(scores.shipped, 2),
    }
    if result.int8 is not None:
        row["int8"] = result.int8.record()
    return row


def _times_ms(bundles: dict[str, Path], images: str, args: argparse.Namespace) -> dict[str, float]:
    """Median time of a frame of every bundle, timed in turn on the same frames."""
    opened = {
        name: open_backend("onnxruntime", path, read_manifest(path), args.threads)
        for name, path in bundles.items()
    }
    if not opened:
        return {}
    input_hw = read_manifest(next(iter(bundles.values()))).input_hw
    loaded = zip(read_all(open_images(images), None), range(_FRAMES), strict=False)
    frames = [np.ascontiguousarray(resize_image(one.image, input_hw)) for one, _ in loaded]
    calls: dict[str, Callable[[], object]] = {
        name: partial(_next, backend.infer, cycle(frames)) for name, backend in opened.items()
    }
    timings = time_in_turn(calls, args.rounds, args.calls)
    return {name: timing.p50_ms for name, timing in timings.items()}


def _next(infer: Callable[[np.ndarray], np.ndarray], frames: cycle[np.ndarray]) -> np.ndarray:
    return infer(next(frames))
