"""How a benchmark ends: rows are kept, the table is printed, an error is exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.measuring.rows import Row, append_rows
from benchmarks.measuring.table import Table
from runtime.errors import StreamError
from runtime.output import print_error, print_result
from sfda_edge.errors import SfdaEdgeError


def exit_code_of(run: Callable[[], int | None]) -> int:
    """Run a benchmark: what the user has to change is exit code 2, Ctrl-C is 130."""
    try:
        return run() or 0
    except (SfdaEdgeError, StreamError, OSError) as error:
        print_error(error)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def keep_and_print(
    measure: Callable[[], list[Row]],
    table: Callable[[Sequence[Row]], Table],
    out: Path | None,
    *,
    then: Callable[[Sequence[Row]], object] | None = None,
) -> int:
    """Measure; the exit code.

    Args:
        measure: the rows of one run.
        table: of them.
        out: a file that the rows are added to; None for none.
        then: what else to do with the rows once they are kept.
    """

    def run() -> None:
        rows = measure()
        if out is not None:
            append_rows(out, rows)
        print_result(table(rows).markdown())
        if then is not None:
            then(rows)

    return exit_code_of(run)
