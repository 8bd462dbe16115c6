"""The README's measured tables, made from the results; nobody types a figure.

A block is the lines between ``<!--figures:NAME-->`` and ``<!--end-->``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.adaptation.table import read_accuracy
from benchmarks.measuring.distribution import paired_ratio
from benchmarks.report.accuracy import mean, rows_of
from benchmarks.report.content import ACCURACY_FILE
from benchmarks.report.runs import Run, disturbed, latest, read_all_rows, runs_of
from sfda_edge.errors import DataError

_BLOCK = re.compile(r"(<!--figures:(\w+)-->\n).*?(<!--end-->)", re.S)
# The tasks that the README shows: scored on drives and images that were not adapted to.
_TASKS = {
    "A-out": "Cityscapes → CamVid, ESPNetv2",
    "B-out": "StreetSynth → CamVid, `lite0_fpn_tiny`",
    "C-out": "StreetSynth clear → dusk",
    "clip": "StreetSynth clear → packaged clip",
}
# The ways that the README shows, as it names them.
_WAYS = {
    "sfda-edge, openvino": "sfda-edge on OpenVINO",
    "sfda-edge, onnxruntime": "sfda-edge on ONNX Runtime",
    "OpenVINO, all in the graph": "plain export, OpenVINO",
    "ONNX Runtime, all in the graph": "plain export, ONNX Runtime",
    "ONNX Runtime + NumPy": "plain export + NumPy",
    "torch, compiled": "torch.compile",
}
_LOOPS = {
    "OpenCV: model, colours and saving": "OpenCV",
    "Ultralytics: model, colours and saving": "Ultralytics",
    "supervision: model, colours and saving": "supervision",
}
_NETWORK, _SIZE, _PRECISION = "espnetv2_s2.0", "512x256", "fp32"


def with_figures(text: str, results: Path) -> str:
    """A README with the figures that a folder of results has now.

    Raises:
        DataError: it has no block or one that is not known, or a figure is missing.
    """
    blocks: dict[str, Callable[[Path], str]] = {
        "accuracy": _accuracy,
        "speed": _speed,
        "video": _video,
    }

    def filled(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        if name not in blocks:
            raise DataError(f"README has a block '{name}'; known: {', '.join(sorted(blocks))}")
        return f"{begin}{blocks[name](results)}{end}"

    found, count = _BLOCK.subn(filled, text)
    if not count:
        raise DataError("the README has no block that is made by benchmarks.report")
    return found


def _accuracy(results: Path) -> str:
    record = read_accuracy(results / ACCURACY_FILE)
    lines = ["| source → target | source | `bn` | `multiview` |", "|---|---|---|---|"]
    for task, title in _TASKS.items():
        rows = {recipe: rows_of(record, task, recipe) for recipe in ("bn", "multiview")}
        if not all(rows.values()):
            raise DataError(f"{ACCURACY_FILE} has no row of bn or of multiview on task {task}")
        source = f"{rows['bn'][0]['source_miou']:.1f}"
        scores = [mean(found, "returned") for found in rows.values()]
        lines.append(f"| {title} | {source} | {scores[0]} | **{scores[1]}** |")
    return "\n".join(lines) + "\n"


def _speed(results: Path) -> str:
    run = _peers_run(results, "frames")
    lines = ["| frame to label map | p50 | ratio |", "|---|---|---|"]
    by_way = _by_way(run, _WAYS)
    first = by_way[next(iter(_WAYS))]["ratio"]["rounds"]
    for way, title in _WAYS.items():
        figures = by_way[way]
        ratio = paired_ratio(figures["ratio"]["rounds"], first)
        lines.append(f"| {title} | {figures['p50_ms']:.1f} ms | {ratio.median:.2f} |")
    machine = run[0].machine
    least = min(by_way[way]["same_labels"] for way in _WAYS)
    lines += ["", f"ESPNetv2, {_SIZE}, {run[0].conditions['threads']} threads of an "]
    lines[-1] += f"{machine['processor']}{_if_disturbed(run)}; labels agree in {100 * least:.3f} %."
    return "\n".join(lines) + "\n"


def _video(results: Path) -> str:
    run = _peers_run(results, "video")
    by_way = _by_way(run, _LOOPS)
    taken = [f"{title} {by_way[way]['ratio']['median']:.2f}" for way, title in _LOOPS.items()]
    return (
        f"720p video to coloured video, time relative to ours{_if_disturbed(run)}: "
        f"{', '.join(taken)}.\n"
    )


def _if_disturbed(run: Run) -> str:
    return ", disturbed by other work" if disturbed(run) else ""


def _by_way(run: Run, wanted: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The figures of a run by way.

    Raises:
        DataError: one that is wanted was not measured.
    """
    by_way = {row.way: row.figures for row in run}
    missing = [way for way in wanted if "ratio" not in by_way.get(way, {})]
    if missing:
        raise DataError(f"the latest run of {_NETWORK} has no figure of '{missing[0]}'")
    return by_way


def _peers_run(results: Path, what: str) -> Run:
    rows = [row for row in read_all_rows(results) if row.conditions.get("what") == what]
    wanted = (_NETWORK, _SIZE, _PRECISION)
    runs = [run for run in latest(runs_of(rows, "peers")) if run[0].subject == wanted]
    if not runs:
        raise DataError(f"{results} has no run of benchmarks.peers {what} on {_NETWORK}, {_SIZE}")
    return ([run for run in runs if not disturbed(run)] or runs)[-1]
