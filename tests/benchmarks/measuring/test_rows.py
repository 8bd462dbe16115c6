"""Rows as JSON Lines: what is written is read again, and nothing else is."""

import subprocess
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.measuring import rows
from benchmarks.measuring.rows import (
    Origin,
    Row,
    RowsError,
    append_rows,
    command_line,
    commit,
    invocation,
    read_rows,
)

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"
MACHINE = {"processor": "a", "cores": 2, "load_average_1min": 0, "python": "3", "packages": {}}
MACHINE |= {"measured": "2026-11-30"}
ROW = Row(
    benchmark="peers",
    network="a",
    size="8x8",
    precision="fp32",
    way="ours",
    figures={"p50_ms": 1.5},
    command="python -m benchmarks.peers frames",
    commit="abc",
    machine=MACHINE,
)
TEXT = st.text(max_size=20)
VALUES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT
VALUES |= st.floats(allow_nan=False, allow_infinity=False)


@given(TEXT, st.dictionaries(TEXT, VALUES, max_size=4), st.dictionaries(TEXT, TEXT, max_size=3))
def test_rows_are_added_and_read_again(tmp_path_factory, way, figures, conditions):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    row = msgspec.structs.replace(ROW, way=way, figures=figures, conditions=conditions)
    append_rows(path, [row])
    append_rows(path, [ROW])
    assert read_rows(path) == [row, ROW]
    assert len(path.read_bytes().splitlines()) == 2


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"{}",
        b"\xff",
        msgspec.json.encode(ROW).replace(b'"schema":1', b'"schema":2'),
        msgspec.json.encode(ROW).replace(b'"way"', b'"why"'),
        msgspec.json.encode(ROW).replace(b'"size":"8x8"', b'"size":8'),
        msgspec.json.encode(ROW).replace(b'"measured"', b'"measure"'),
    ],
)
def test_what_is_no_row_is_named_with_its_line(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(msgspec.json.encode(ROW) + b"\n" + line + b"\n")
    with pytest.raises(RowsError, match=r"rows\.jsonl, line 2 is not a measured row"):
        read_rows(path)


def test_a_line_that_was_not_finished_takes_no_other_with_it(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_rows(path, [ROW, ROW])
    path.write_bytes(path.read_bytes()[:-9])  # as of a kill meanwhile
    append_rows(path, [ROW])
    first, unfinished, last = path.read_bytes().splitlines()
    assert first == last == msgspec.json.encode(ROW)
    assert unfinished == first[:-8]
    with pytest.raises(RowsError, match="line 2 is not a measured row"):
        read_rows(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RowsError, match="cannot be read: No such file"):
        read_rows(tmp_path / "rows.jsonl")


def test_a_command_is_kept_without_credentials():
    words = ["frames", "--source", "rtsp://me:secret@camera/1", "--x=rtsp://me:secret t@h", "a b"]
    shown = command_line("benchmarks.peers", words)
    assert shown.startswith("python -m benchmarks.peers frames --source ")
    assert shown.endswith("'a b'")
    assert "secret" not in shown


def test_the_commit_of_a_row_is_that_of_the_beginning(monkeypatch):
    monkeypatch.setattr(rows, "commit", lambda: "before")
    begun = invocation("benchmarks.peers", ["frames"])
    monkeypatch.setattr(rows, "commit", lambda: "after")
    (row,) = Origin(begun, "a", "8x8", "fp32").rows({"ours": {}}, MACHINE, {})
    assert (row.commit, row.benchmark) == ("before", "peers")
    assert row.command == "python -m benchmarks.peers frames"


def test_a_commit_is_that_of_the_checkout(monkeypatch):
    found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    if found.returncode:
        assert commit() is None
    else:
        assert commit().rstrip("+") == found.stdout[:10]
    monkeypatch.setenv("PATH", "")
    assert commit() is None


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(RowsError, match="cannot be written: Is a directory"):
        append_rows(tmp_path, [ROW])


def test_the_committed_rows_are_rows():
    paths = sorted(RESULTS.glob("*.jsonl"))
    assert {path.stem for path in paths} >= {"pareto", "peers", "scale", "throughput"}
    assert all(read_rows(path) for path in paths)
