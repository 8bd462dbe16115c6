"""The page and the README's figures, from rows that are written here."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.measuring.rows import Row, append_rows, read_rows
from benchmarks.peers.video_loops import LOOPS
from benchmarks.report.__main__ import RESULTS, main
from benchmarks.report.accuracy import scored_on
from benchmarks.report.readme import with_figures
from benchmarks.report.runs import latest, over_commits, runs_of
from sfda_edge.errors import DataError

README = Path(__file__).parents[3] / "README.md"
MACHINE = {"processor": "a CPU", "cores": 2, "load_average_1min": 0.1, "python": "3.11"}
MACHINE |= {"packages": {"numpy": "2"}, "measured": "2026-11-30T01:00:00+00:00"}
TIMES = {"p50_ms": 10.0, "p90_ms": 11.0, "p95_ms": 12.0, "p99_ms": 15.0, "max_ms": 20.0}
RATIO = {"median": 1.0, "low": 0.9, "high": 1.1, "rounds": [1.0]}
WAYS = ("sfda-edge, openvino", "sfda-edge, onnxruntime", "OpenVINO, all in the graph")
WAYS += (
    "ONNX Runtime, all in the graph",
    "ONNX Runtime + NumPy",
    "torch, compiled",
    "torch, eager",
)


def row(benchmark, way, conditions, figures, **changes):
    facts = {"benchmark": benchmark, "way": way, "conditions": conditions, "figures": figures}
    facts |= {"network": "espnetv2_s2.0", "size": "512x256", "precision": "fp32"}
    facts |= {"command": f"python -m benchmarks.{benchmark}", "commit": "abc", "machine": MACHINE}
    return Row(**(facts | changes))


def frames_run(factor=1.0, **changes):
    conditions = {"what": "frames", "threads": 1, "camera_fps": 15}
    return [
        row(
            "peers",
            way,
            conditions,
            {
                **{name: factor * (place + 1) * value for name, value in TIMES.items()},
                "ratio": RATIO | {"median": place + 1.0, "rounds": [place + 1.0] * 3},
                "same_labels": 1.0,
            },
            **changes,
        )
        for place, way in enumerate(WAYS)
    ]


def accuracy_row(task, recipe, seed, returned, overrides=()):
    return {
        "task": task,
        "recipe": recipe,
        "seed": seed,
        "overrides": list(overrides),
        "source_miou": 40.0,
        "source_score": 0.5,
        "checkpoints": [],
        "final_miou": returned - 1,
        "returned_miou": returned,
        "returned_step": 3,
    }


def rows_of_other_programs():
    share = {"per_second": 9.2, "share_of_engine": RATIO | {"median": 0.973}}
    stages = {"stage_ms": {"infer": {"p50": 1.0, "p99": 2.0}, "age": {"p50": 3.0, "p99": 4.0}}}
    processes = {"images": 40, "decoded_to_check": [20, 20], "decoded_in_steps": [8, 8]}
    adapted = {"method": "bn", "batch_size": 8, "steps": 2, "images": "x", "kept": "images"}
    engine = {"compute_capability": "8.9", "bytes": 2e6, "build_s": 1.5, "proved_by": "inspector"}
    source = {"backend": "a backend", "frames": 72, "source": "clip"}
    return [
        row("stream", "end to end", source, share | stages),
        row("efficiency", "stream", {"video": "720p"}, share | {"backend": "a library"}),
        row("data_parallel", "2 processes", adapted, processes | {"step_ms": 9, "speed_up": 1.9}),
        row(
            "engines",
            "engine",
            {"library": "rtx 1"},
            engine | {"layer_types": {"CONVOLUTION HALF": 34}},
        ),
        row(
            "decoder", "LR-ASPP", {"threads": 1}, {**TIMES, "parameters": 3_040_000, "ratio": RATIO}
        ),
    ]


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    video = {"what": "video", "threads": 1}
    append_rows(folder / "peers.jsonl", frames_run())
    loops = [f"{name}: model, colours and saving" for name in LOOPS]
    figures = {"per_second": 9.5, "ratio": RATIO | {"median": 1.25}}
    append_rows(
        folder / "peers.jsonl", [row("peers", way, video, figures, command="v") for way in loops]
    )
    pareto = {"run": "one", "argmax": "full", "threads": 1, "validation": "clip"}
    append_rows(
        folder / "pareto.jsonl",
        [
            row("pareto", "onnxruntime", pareto, {**TIMES, "miou": 60.5, "bytes": 4e6,
                                                  "agreement_with_torch": 0.9999}),
            row("pareto", "<b>", pareto, {"did_not_run": "it | is <i>missing</i>"}),
        ],
    )  # fmt: skip
    files = {"files": 4, "backend": "onnxruntime", "threads": 0}
    append_rows(
        folder / "throughput.jsonl",
        [row("throughput", "one by one", files, {"frames_per_second": 30.0, "ratio": RATIO})],
    )
    append_rows(folder / "others.jsonl", rows_of_other_programs())
    axes = {
        "sizes": {**TIMES, "megapixels": 0.1, "ms_per_megapixel": 100.0},
        "images": {"images": 100, "seconds": 9.0, "ms_per_image": 90.0, "peak_memory_gib": 1.0},
    }
    for axis, figures in axes.items():
        more = {name: 2 * value for name, value in figures.items()}
        more |= {} if axis == "images" else {"ratio": RATIO}
        figures |= {} if axis == "images" else {"ratio": RATIO}
        pair = [(f"{axis} {number}", found) for number, found in enumerate((figures, more))]
        append_rows(
            folder / "scale.jsonl",
            [
                row("scale", way, {"axis": axis}, found, command=axis) for way, found in pair
            ],
        )  # fmt: skip
    accuracy = [accuracy_row("A-out", "bn", 0, 50), accuracy_row("A-out", "multiview", 0, 60)]
    accuracy += [accuracy_row("A-out", "multiview", 1, 62)]
    accuracy += [accuracy_row("A-out", "multiview", 0, 99, ("old code",))]
    for task in ("B-out", "C-out", "clip"):
        accuracy += [accuracy_row(task, recipe, 0, 55) for recipe in ("bn", "multiview")]
    record = {"rows": accuracy, "machine": MACHINE}
    (folder / "adaptation-accuracy.json").write_text(json.dumps(record))
    return folder


class Outline(HTMLParser):
    """Tags that are open at the end, text of cells, and what the page would fetch."""

    VOID = ("meta", "br", "link", "img", "use", "path", "line", "rect")

    def __init__(self, text):
        super().__init__()
        self.open, self.cells, self.fetched, self._in_cell = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        names = dict(attributes)
        self.fetched += [v for k, v in names.items() if k in ("src", "href") and v[0] != "#"]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")
        self._in_cell = tag == "td"

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag
        self._in_cell = False

    def handle_data(self, data):
        if self._in_cell:
            self.cells[-1] += data.strip()


def test_the_page_holds_every_result_and_fetches_nothing(results, in_empty_folder):
    assert main(["--results", str(results), "--markdown", "tables.md"]) == 0
    html = (in_empty_folder / "report.html").read_text()
    outline = Outline(html)
    assert outline.open == []
    assert outline.fetched == []
    assert "<script" not in html
    for cell in ("61.0 ± 1.4", "60.5", "9.5", "did not run: it | is <i>missing</i>", "30.0"):
        assert cell in outline.cells, cell
    assert "99.0" not in outline.cells  # of other settings
    assert html.count("<svg") == 5  # accuracy, front, latency, two axes of scale
    assert "currentColor" in html
    assert "python -m benchmarks.throughput" in html
    assert "    python -m benchmarks.throughput\n" in (in_empty_folder / "tables.md").read_text()
    printed = (in_empty_folder / "tables.md").read_text()
    titles = ["Accuracy", "Time against accuracy", "Up to the label map", "From video to video"]
    titles += ["Several files", "A whole stream", "Scale", "Several processes that adapt"]
    titles += ["Engines", "Decoders"]
    assert [line[3:] for line in printed.splitlines() if line.startswith("## ")] == titles
    assert "did not run: it \\| is" in printed
    for cell in ("97.3 (90.0 to 110.0)", "20, 20 of 40", "34 CONVOLUTION HALF", "3.04"):
        assert cell in outline.cells, cell


def test_what_is_over_commits_is_shown_relative_to_its_first_line(results, in_empty_folder):
    later = MACHINE | {"measured": "2026-12-01T01:00:00+00:00"}
    append_rows(results / "peers.jsonl", frames_run(0.5, commit="def", machine=later))
    assert main(["--results", str(results)]) == 0
    cells = Outline((in_empty_folder / "report.html").read_text()).cells
    assert "abc, 2026-11-30" in cells
    assert "def, 2026-12-01" in cells
    assert "35.00" in cells
    assert "70.00" not in cells  # the earlier run's time


def test_points_of_one_backend_are_kept_apart_over_commits(results, in_empty_folder):
    def run(commit, factor, measured):
        conditions = {"run": "one", "argmax": "full", "threads": 1, "validation": "clip"}
        return [
            row(
                "pareto",
                "onnxruntime",
                conditions,
                {**TIMES, "miou": 60.0, "ratio": RATIO | {"median": factor * place}},
                size=size,
                commit=commit,
                command="over sizes",
                machine=MACHINE | {"measured": measured},
            )
            for place, size in enumerate(("384x192", "768x384"), 1)
        ]

    for found in (run("abc", 1.57, "2026-11-30"), run("def", 2.58, "2026-12-01")):
        append_rows(results / "pareto.jsonl", found)
    assert main(["--results", str(results)]) == 0
    cells = Outline((in_empty_folder / "report.html").read_text()).cells
    places = [cells.index(ratio) for ratio in ("1.57", "3.14", "2.58", "5.16")]
    assert np.diff(places).tolist() == [1, 2, 1]  # a line for each commit, after its name


def test_mistakes_are_counted_among_the_rows_that_are_shown(results, in_empty_folder):
    path = results / "adaptation-accuracy.json"
    record = json.loads(path.read_text())
    record["rows"].append(accuracy_row("A-out", "bn", 0, 10, ("old code",)))
    path.write_text(json.dumps(record))
    assert main(["--results", str(results), "--markdown", "tables.md"]) == 0
    printed = (in_empty_folder / "tables.md").read_text()
    assert "of 9 runs, 0 returned less than the source" in printed


def test_the_readme_prefers_a_run_that_nobody_disturbed(results):
    later = MACHINE | {"measured": "2026-12-01T01:00:00+00:00", "disturbed": True}
    path = results / "peers.jsonl"
    append_rows(path, frames_run(3.0, command="longer", machine=later))
    assert "| sfda-edge on OpenVINO | 10.0 ms | 1.00 |" in with_figures(TEXT, results)
    rows = [msgspec.structs.replace(one, machine=later) for one in read_rows(path)]
    path.unlink()
    append_rows(path, rows)
    text = with_figures(TEXT, results)
    assert "time relative to ours, disturbed by other work: OpenCV" in text
    assert "a CPU, disturbed by other work; labels agree" in text


def test_the_latest_run_counts_unless_others_disturbed_it():
    def run(measured, **machine):
        return frames_run(machine=MACHINE | {"measured": measured} | machine)

    rows = [*run("1"), *run("2"), *run("3", disturbed=True)]
    runs = runs_of(rows, "peers")
    assert [len(one) for one in runs] == [7, 7, 7]
    assert [one[0].machine["measured"] for one in latest(runs)] == ["2"]
    rows = [*run("1", disturbed=True), *run("2", disturbed=True)]
    assert [one[0].machine["measured"] for one in latest(runs_of(rows, "peers"))] == ["2"]
    assert over_commits(runs) == []
    other = [msgspec.structs.replace(one, command="other") for one in run("2")]
    found = latest(runs_of([*run("1"), *other, *run("3")], "peers"))
    assert [one[0].machine["measured"] for one in found] == ["2", "3"]
    elsewhere = runs_of([*run("1"), *run("2", processor="another")], "peers")
    assert len(latest(elsewhere)) == 2


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_folder_without_results_is_named(in_empty_folder, name, capsys):
    (in_empty_folder / "empty").mkdir()
    assert main(["--results", name]) == 2
    assert f"{name} holds no results" in capsys.readouterr().err
    assert not (in_empty_folder / "report.html").exists()


TEXT = """before
<!--figures:accuracy-->
old
<!--end-->
between
<!--figures:speed-->
<!--end-->
<!--figures:video-->
<!--end-->
after
"""


def test_the_readmes_blocks_are_written_again_and_nothing_else(results, in_empty_folder):
    (in_empty_folder / "README.md").write_text(TEXT)
    assert main(["--results", str(results), "--readme", "README.md"]) == 0
    text = (in_empty_folder / "README.md").read_text()
    assert "old" not in text
    assert [part in text for part in ("before\n", "\nbetween\n", "\nafter\n")] == [True] * 3
    assert "| Cityscapes → CamVid, ESPNetv2 | 40.0 | 50.0 | **61.0 ± 1.4** |" in text
    assert "| sfda-edge on OpenVINO | 10.0 ms | 1.00 |" in text
    assert "| plain export, ONNX Runtime | 40.0 ms | 4.00 |" in text
    assert "ESPNetv2, 512x256, 1 threads of an a CPU; labels agree in 100.000 %." in text
    assert "relative to ours: OpenCV 1.25, Ultralytics 1.25, supervision 1.25." in text
    assert with_figures(text, results) == text


def test_a_figure_that_is_missing_is_an_error_and_the_readme_stays(results, in_empty_folder):
    readme = in_empty_folder / "README.md"
    readme.write_text(TEXT.replace("figures:accuracy", "figures:taste"))
    assert main(["--results", str(results), "--readme", "README.md"]) == 2
    assert readme.read_text() == TEXT.replace("figures:accuracy", "figures:taste")
    lines = (results / "peers.jsonl").read_bytes().splitlines()
    kept = [msgspec.json.decode(line, type=Row) for line in lines]
    (results / "peers.jsonl").unlink()
    append_rows(results / "peers.jsonl", [one for one in kept if one.way != WAYS[0]])
    with pytest.raises(DataError, match="no figure of 'sfda-edge, openvino'"):
        with_figures(TEXT, results)
    (results / "adaptation-accuracy.json").write_text('{"rows": []}')
    with pytest.raises(DataError, match="no row of bn or of multiview on task A-out"):
        with_figures(TEXT, results)


def test_what_cannot_be_read_is_exit_code_2(results, in_empty_folder, capsys):
    assert main(["--results", str(results), "--readme", "missing.md"]) == 2
    assert "missing.md cannot be read" in capsys.readouterr().err
    (in_empty_folder / "plain.md").write_text("nothing")
    assert main(["--results", str(results), "--readme", "plain.md"]) == 2
    assert "has no block" in capsys.readouterr().err
    accuracy = results / "adaptation-accuracy.json"
    for damaged in ("{", "[]", '{"rows": [1]}'):
        accuracy.write_text(damaged)
        assert main(["--results", str(results)]) == 2
        assert "is no record of benchmarks.adaptation" in capsys.readouterr().err
    accuracy.unlink()
    (in_empty_folder / "README.md").write_text(TEXT)
    assert main(["--results", str(results), "--readme", "README.md"]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_the_readmes_figures_are_those_of_the_committed_results():
    text = README.read_text(encoding="utf-8")
    assert len(re.findall(r"<!--figures:\w+-->", text)) == 3
    assert with_figures(text, RESULTS) == text


def test_the_committed_tables_are_those_of_the_committed_results(in_empty_folder):
    assert main(["--markdown", "tables.md"]) == 0
    assert (in_empty_folder / "tables.md").read_text() == (RESULTS / "tables.md").read_text()


@pytest.mark.parametrize(
    ("task", "text"),
    [("A-out", "unlike"), ("organs-home", "source"), ("F", "source"), ("A", "like")],
)
def test_a_task_says_what_its_scored_images_are(task, text):
    assert text in scored_on(task)
