"""How a benchmark ends: rows are kept, the table is printed, an error is exit code 2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.measuring.rows import Row, append_rows
from benchmarks.measuring.table import Table
from runtime.errors import StreamError
from runtime.output import print_error, print_result
from sfda_edge.errors import SfdaEdgeError


def keep_and_print(
    measure: Callable[[], list[Row]], table: Callable[[Sequence[Row]], Table], out: Path | None
) -> int:
    """Measure; the exit code.

    Args:
        measure: the rows of one run.
        table: of them.
        out: a file that the rows are added to; None for none.
    """
    try:
        rows = measure()
        if out is not None:
            append_rows(out, rows)
    except (SfdaEdgeError, StreamError) as error:
        print_error(error)
        return 2
    print_result(table(rows).markdown())
    return 0
