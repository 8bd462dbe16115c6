"""The sections of the page, from the files of results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import charts, data_parallel, decoder, efficiency, engines, stream, throughput
from benchmarks.adaptation.table import read_accuracy
from benchmarks.measuring.machine import machine_line
from benchmarks.measuring.rows import Row
from benchmarks.measuring.table import Table
from benchmarks.pareto import table as pareto
from benchmarks.peers import table as peers
from benchmarks.report.accuracy import accuracy_table, gains
from benchmarks.report.runs import Run, disturbed, latest, over_commits, read_all_rows, runs_of
from benchmarks.scale import table as scale
from sfda_edge.errors import DataError

ACCURACY_FILE = "adaptation-accuracy.json"


@dataclass(frozen=True)
class Block:
    """A table, its chart, or both.

    Attributes:
        table: with command and machine.
        chart: SVG; empty for none.
    """

    table: Table
    chart: str = ""


@dataclass(frozen=True)
class Section:
    """A heading and its blocks.

    Attributes:
        title: the heading.
        text: how to read it.
        blocks: one for each run.
    """

    title: str
    text: str
    blocks: tuple[Block, ...]


def sections(results: Path) -> list[Section]:
    """All that a folder of results has; empty sections are left out.

    Raises:
        DataError: the folder is missing, or has no results.
        RowsError: a file of it cannot be read.
    """
    rows = read_all_rows(results) if results.is_dir() else []
    found = [
        Section("Accuracy", _ACCURACY, _accuracy(results / ACCURACY_FILE)),
        Section("Time against accuracy", _PARETO, _blocks(rows, "pareto", _pareto)),
        Section("Up to the label map", _FRAMES, _blocks(_part(rows, "frames"), "peers", _frames)),
        Section("From video to video", _VIDEO, _blocks(_part(rows, "video"), "peers", _plain)),
        Section("Several files", _THROUGHPUT, _blocks(rows, "throughput", _files)),
        Section("A whole stream", _STREAM, _streams(rows)),
        Section("Scale", _SCALE, _blocks(rows, "scale", _scale)),
        Section(
            "Several processes that adapt", _PARALLEL, _blocks(rows, "data_parallel", _parallel)
        ),
        Section("Engines", _ENGINES, _blocks(rows, "engines", _engines)),
        Section("Decoders", _DECODERS, _blocks(rows, "decoder", _decoders)),
        Section("Over commits", _HISTORY, _history(rows)),
    ]
    found = [section for section in found if section.blocks]
    if not found:
        raise DataError(f"{results} holds no results: no *.jsonl and no {ACCURACY_FILE}")
    return found


_ACCURACY = (
    "mIoU in per cent; adaptation sees images only. Scores on other drives say more about your "
    "data than scores on the drives that were adapted to."
)
_PARETO = "The points of the front are named: nothing else is as fast and as accurate."
_FRAMES = (
    "The same frames and weights. Ratios are of rounds that alternate, with the interval of 95 % "
    "of their resamplings; below 1 is faster than the first line. benchmark_app runs alone."
)
_VIDEO = "Loops around the same model call: they differ in reading, resizing, colouring, saving."
_THROUGHPUT = (
    "Frames per second of recordings. Energy stands there where a machine shows its power."
)
_STREAM = (
    "From file to label map, and what is beside the model. Shares are of the engine's rate on "
    "frames that are decoded and resized already, in the same rounds. Age is that of a live "
    "source's frame; processor is the time of all cores for a frame, beside model and decoding."
)
_SCALE = "How time and memory grow."
_PARALLEL = "The same global batch, shared among processes of one thread each."
_ENGINES = "Built by TensorRT; without a GPU the types are those that the network declares."
_DECODERS = "The light network's encoder alone, and with two decoders."
_HISTORY = "Time relative to the first line of the same run, at each commit that was measured."


def _accuracy(path: Path) -> tuple[Block, ...]:
    if not path.is_file():
        return ()
    record = read_accuracy(path)
    both = gains(record)
    return (Block(accuracy_table(record), charts.gain_chart(both) if both else ""),)


def _part(rows: Sequence[Row], what: str) -> list[Row]:
    return [row for row in rows if row.conditions.get("what") == what]


def _blocks(
    rows: Sequence[Row], benchmark: str, block: Callable[[Run], Block]
) -> tuple[Block, ...]:
    return tuple(block(run) for run in latest(runs_of(rows, benchmark)))


def _pareto(run: Run) -> Block:
    points = pareto.points_of(run)
    return Block(pareto.table(run), charts.front_chart(points) if points else "")


def _frames(run: Run) -> Block:
    figures = {row.way: row.figures for row in run}
    return Block(peers.table(run), charts.latency_chart(figures))


def _plain(run: Run) -> Block:
    return Block(peers.table(run))


def _files(run: Run) -> Block:
    return Block(throughput.table(run))


def _streams(rows: Sequence[Row]) -> tuple[Block, ...]:
    return (
        *_blocks(rows, "stream", lambda run: Block(stream.table(run))),
        *_blocks(rows, "efficiency", lambda run: Block(efficiency.table(run))),
    )


def _parallel(run: Run) -> Block:
    return Block(data_parallel.table(run))


def _engines(run: Run) -> Block:
    return Block(engines.table(run))


def _decoders(run: Run) -> Block:
    return Block(decoder.table(run))


# Of each axis: what is drawn over what.
_DRAWN = {
    "images": ("images", "seconds"),
    "streams": ("streams", "images_per_second"),
    "sizes": ("megapixels", "p50_ms"),
    "classes": ("classes", "p50_ms"),
}


def _scale(run: Run) -> Block:
    x_name, y_name = _DRAWN[str(run[0].conditions["axis"])]
    drawn = [row for row in run if "batched" not in row.way]
    points = [(row.figures[x_name], row.figures[y_name]) for row in drawn]
    chart = charts.line_chart(points, x_name, y_name.replace("_", " "))
    return Block(scale.table(run), chart if len(points) > 1 else "")


def _history(rows: Sequence[Row]) -> tuple[Block, ...]:
    return tuple(
        Block(_commits(runs))
        for benchmark in ("peers", "pareto", "throughput", "scale", "decoder")
        for runs in over_commits(runs_of(rows, benchmark))
    )


def _way(row: Row) -> str:
    return pareto.name_of(row) if row.benchmark == "pareto" else row.way


def _commits(runs: Sequence[Run]) -> Table:
    command = runs[-1][0].command
    ways = list(dict.fromkeys(_way(row) for run in runs for row in run))
    cells = []
    for run in runs:
        ratios = {
            _way(row): f"{row.figures['ratio']['median']:.2f}"
            for row in run
            if "ratio" in row.figures
        }
        measured = str(run[0].machine["measured"])[:10]
        mark = ", disturbed" if disturbed(run) else ""
        cells.append((f"{run[0].commit}, {measured}{mark}", *(ratios.get(way, "") for way in ways)))
    machine = machine_line(runs[-1][0].machine)
    return Table(command, ("", *ways), tuple(cells), command=command, machine=machine)
