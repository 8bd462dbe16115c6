"""The README's measured tables, made from the results; nobody types a figure.

A block is the lines between ``<!-- NAME: made by benchmarks.report -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from benchmarks.measuring.distribution import paired_ratio
from benchmarks.report.accuracy import mean, read_accuracy, rows_of
from benchmarks.report.content import ACCURACY_FILE
from benchmarks.report.runs import Run, latest, read_all_rows, runs_of
from sfda_edge.errors import DataError

_BLOCK = re.compile(r"(<!-- (\w+): made by benchmarks\.report -->\n).*?(<!-- end -->)", re.S)
# The tasks that the README shows: scored on drives and images that were not adapted to.
_TASKS = {
    "A-out": ("Cityscapes → CamVid, another drive", "ESPNetv2, 512x256"),
    "B-out": ("StreetSynth clear → CamVid, another drive", "`lite0_fpn_tiny`, 384x192"),
    "C-out": ("StreetSynth clear → dusk, other light and lens", "the same"),
    "clip": ("StreetSynth clear → dusk clip", "the same"),
}
# The ways that the README shows, as it names them.
_WAYS = {
    "sfda-edge, openvino": "sfda-edge, OpenVINO",
    "sfda-edge, onnxruntime": "sfda-edge, ONNX Runtime",
    "OpenVINO + NumPy": "plain export, OpenVINO",
    "ONNX Runtime + NumPy": "plain export, ONNX Runtime",
    "OpenCV DNN + NumPy": "plain export, OpenCV DNN",
    "torch, compiled": "torch, compiled",
    "torch, eager": "torch, eager",
}
_NETWORK, _SIZE, _PRECISION = "espnetv2_s2.0", "512x256", "fp32"


def with_figures(text: str, results: Path) -> str:
    """A README with the figures that a folder of results has now.

    Raises:
        DataError: it has no block or one that is not known, or a figure is missing.
    """
    blocks: dict[str, Callable[[Path], str]] = {"accuracy": _accuracy, "speed": _speed}

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
    lines = ["| source → target | network, size | source | `bn` | `multiview` (default) |"]
    lines.append("|---|---|---|---|---|")
    for task, (title, network) in _TASKS.items():
        rows = {recipe: rows_of(record, task, recipe) for recipe in ("bn", "multiview")}
        if not all(rows.values()):
            raise DataError(f"{ACCURACY_FILE} has no row of bn or of multiview on task {task}")
        source = f"{rows['bn'][0]['source_miou']:.1f}"
        scores = [mean(found, "returned") for found in rows.values()]
        lines.append(f"| {title} | {network} | {source} | {scores[0]} | **{scores[1]}** |")
    return "\n".join(lines) + "\n"


def _speed(results: Path) -> str:
    run = _frames_run(results)
    lines = ["| frame to label map | p50 | time, ratio | same labels |", "|---|---|---|---|"]
    by_way = {row.way: row.figures for row in run}
    missing = [way for way in _WAYS if "ratio" not in by_way.get(way, {})]
    if missing:
        raise DataError(f"the latest run of {_NETWORK} has no figure of '{missing[0]}'")
    first = by_way[next(iter(_WAYS))]["ratio"]["rounds"]
    for way, title in _WAYS.items():
        figures = by_way[way]
        ratio = paired_ratio(figures["ratio"]["rounds"], first)
        interval = f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
        same = f"{100 * figures['same_labels']:.3f} %"
        lines.append(f"| {title} | {figures['p50_ms']:.1f} ms | {interval} | {same} |")
    machine = run[0].machine
    disturbed = ", disturbed by other work" if machine.get("disturbed") else ""
    lines += ["", f"ESPNetv2, {_SIZE}, {_PRECISION}, {run[0].conditions['threads']} threads, "]
    lines[-1] += f"{machine['processor']}, {str(machine['measured'])[:10]}{disturbed}."
    return "\n".join(lines) + "\n"


def _frames_run(results: Path) -> Run:
    rows = [row for row in read_all_rows(results) if row.conditions.get("what") == "frames"]
    wanted = (_NETWORK, _SIZE, _PRECISION)
    runs = [run for run in latest(runs_of(rows, "peers")) if run[0].subject == wanted]
    if not runs:
        raise DataError(f"{results} has no run of benchmarks.peers frames on {_NETWORK}, {_SIZE}")
    return runs[-1]
