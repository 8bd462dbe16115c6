"""Bundles in every asked form, scored and timed; those that fail have a row, too."""

import csv

import pytest

from benchmarks.measuring.rows import read_rows
from benchmarks.pareto import __main__ as pareto
from benchmarks.pareto import variants
from export.errors import ExportError

pytestmark = pytest.mark.slow


@pytest.fixture
def few_images(monkeypatch):
    """The clip's first frames only."""
    opened = variants.Validation.open

    def first(self, space):
        images = opened(self, space)
        return type(images)(images.title, images.samples[:4], images.label_space)

    monkeypatch.setattr(variants.Validation, "open", first)


@pytest.mark.usefixtures("little_effort")
def test_each_form_on_each_backend_is_a_point(in_empty_folder, few_images, monkeypatch, capsys):
    exported = variants.export.export

    def export(source, **options):
        if options["precision"] == "int8":
            raise ExportError("int8 is slower than fp32 on this CPU")
        return exported(source, **options)

    monkeypatch.setattr(variants.export, "export", export)
    arguments = ["--sizes", "96x48,192x96", "--precisions", "fp32,int8", "--argmax", "full"]
    arguments += ["--backends", "onnxruntime,opencv,tensorrt", "--seconds", "1", "--work", "work"]
    files = ["--out", "rows.jsonl", "--csv", "table.csv", "--plot", "front.svg"]
    assert pareto.main([*arguments, *files]) == 0
    rows = read_rows(in_empty_folder / "rows.jsonl")
    assert len(rows) == 2 * 2 * 3
    measured = [row for row in rows if "did_not_run" not in row.figures]
    assert {(row.size, row.precision, row.way) for row in measured} == {
        (size, "fp32", backend)
        for size in ("96x48", "192x96")
        for backend in ("onnxruntime", "opencv")
    }
    assert all(row.figures["agreement_with_torch"] > 0.999 for row in measured)
    mious = {(row.size, row.way): row.figures["miou"] for row in measured}
    assert mious["96x48", "onnxruntime"] == mious["96x48", "opencv"]
    assert mious["96x48", "onnxruntime"] != mious["192x96", "onnxruntime"]
    refused = [row for row in rows if row.precision == "int8"]
    assert all("slower than fp32" in row.figures["did_not_run"] for row in refused)
    with (in_empty_folder / "table.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(rows)
    assert float(table[0]["miou"]) == measured[0].figures["miou"]
    assert "<svg" in (in_empty_folder / "front.svg").read_text()
    printed = capsys.readouterr().out
    assert "| front |" in printed
    assert "did not run: int8 is slower" in printed
    assert (in_empty_folder / "work" / "00-00" / "manifest.json").is_file()
    assert rows[0].conditions["run"] == table[0]["run"] == "packaged"


@pytest.mark.parametrize(
    "flags",
    [["--backends", "onnx"], ["--precisions", "fp32,fp32"], ["--argmax", ""], ["--sizes", "abc"]],
)
def test_lists_are_checked_before_anything_is_exported(flags, capsys):
    with pytest.raises(SystemExit, match="2"):
        pareto.main(flags)
    assert "expected" in capsys.readouterr().err


def test_what_cannot_be_measured_is_exit_code_2(in_empty_folder, capsys):
    assert pareto.main(["nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
