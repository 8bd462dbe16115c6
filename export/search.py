"""Which nodes must keep a higher precision: a search that the gate drives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from export.parity import ParityReport

Judge = Callable[[Sequence[str]], ParityReport]
_RUNS = 12
# A search that has given this share of the nodes back to the higher precision has failed.
_MOST_KEPT = 0.5


def nodes_to_keep(
    order: Sequence[str], start: Collection[str], judge: Judge
) -> tuple[tuple[str, ...], ParityReport]:
    """Give runs of neighbouring nodes back to the higher precision until the gate is passed.

    The nodes that are left are cut into ``_RUNS`` runs, the one whose return helps agreement most
    goes back, and so on.

    Args:
        order: names of all nodes, as they run.
        start: those that keep the higher precision from the beginning.
        judge: converts all but these, and compares.

    Returns:
        the nodes to keep, in order, and the best report; it may have failed.
    """
    kept = set(start)
    report = judge(_in_order(order, kept))
    while not report.passed and len(kept) < _MOST_KEPT * len(order):
        tries = [kept | run for run in _runs(order, kept)]
        reports = [judge(_in_order(order, one)) for one in tries]
        best = max(range(len(tries)), key=lambda index: reports[index].label_agreement)
        if reports[best].label_agreement <= report.label_agreement:
            break
        kept, report = tries[best], reports[best]
    return _in_order(order, kept), report


def _in_order(order: Sequence[str], names: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in order if name in names)


def _runs(order: Sequence[str], kept: Collection[str]) -> list[set[str]]:
    """The nodes that are not kept yet, cut into runs of neighbours."""
    free = [name for name in order if name not in kept]
    size = -(-len(free) // _RUNS)
    return [set(free[start : start + size]) for start in range(0, len(free), size)]
