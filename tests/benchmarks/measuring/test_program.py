"""How a benchmark ends, whatever happens."""

import pytest

from benchmarks.measuring.program import exit_code_of, keep_and_print
from benchmarks.measuring.rows import Origin, invocation, read_rows
from benchmarks.measuring.table import Table
from runtime.errors import StreamError
from sfda_edge.errors import DataError

MACHINE = dict.fromkeys(("processor", "cores", "load_average_1min", "python", "packages"), "")
MACHINE["measured"] = "2026-11-30"


def raising(error):
    def run():
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError("no images"), 2, "error: no images"),
        (StreamError("no camera"), 2, "error: no camera"),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_what_the_user_has_to_change_has_no_traceback(capsys, error, code, said):
    assert exit_code_of(raising(error)) == code
    assert said in capsys.readouterr().err
    assert exit_code_of(lambda: None) == 0
    assert exit_code_of(lambda: 1) == 1
    with pytest.raises(KeyError):
        exit_code_of(raising(KeyError("a fault of ours")))


def test_rows_are_kept_before_anything_else_is_done_with_them(tmp_path, capsys):
    out, drawn = tmp_path / "rows.jsonl", []
    origin = Origin(invocation("benchmarks.peers", []), "a", "8x8", "fp32")
    measured = origin.rows({"ours": {"p50_ms": 1.5}}, MACHINE, {})

    def draw(rows):
        drawn.extend(rows)
        raise OSError("no picture")

    def table(rows):
        return Table("", ("",), tuple((row.way,) for row in rows), command="", machine="")

    assert keep_and_print(lambda: measured, table, out, then=draw) == 2
    assert read_rows(out) == drawn == measured
    shown = capsys.readouterr()
    assert "| ours |" in shown.out
    assert "no picture" in shown.err
