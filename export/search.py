"""Which nodes must keep a higher precision: a search that the gate drives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from export.parity import ParityReport

# Converts all nodes but these, and compares.
Judge = Callable[[Sequence[str]], ParityReport]
_RUNS = 12
# A search that has given this share of the nodes back to the higher precision has failed.
_MOST_KEPT = 0.5
# Trials of what may be taken back again.
_MOST_TRIES = 40


def nodes_to_keep(
    order: Sequence[str], start: Collection[str], judge: Judge, glance: Judge
) -> tuple[tuple[str, ...], ParityReport]:
    """Give nodes back to the higher precision until the gate is passed, and no more than it takes.

    The nodes are cut into ``_RUNS`` runs of neighbours. Runs go back one after the other, those
    first whose return alone helps most; then halves of them, and halves of those, are
    taken back again as long as the gate is passed without them.

    Args:
        order: names of all nodes, as they run.
        start: those that keep the higher precision from the beginning.
        judge: the gate.
        glance: the same on few images, for what only guides the search.

    Returns:
        the nodes to keep, in order, and their report; it may have failed.
    """
    kept: set[str] = set(start)
    report = judge(_in_order(order, kept))
    if report.passed:
        return _in_order(order, kept), report
    given_back: list[list[str]] = []
    for run in _by_gain(order, kept, glance):
        if len(kept) + len(run) > _MOST_KEPT * len(order):
            break
        tried = judge(_in_order(order, kept | set(run)))
        if tried.merit > report.merit:
            kept, report = kept | set(run), tried
            given_back.append(run)
        if report.passed:
            fewer = _shrunk(order, kept, given_back, glance)
            checked = judge(fewer)
            return (fewer, checked) if checked.passed else (_in_order(order, kept), report)
    return _in_order(order, kept), report


def _in_order(order: Sequence[str], names: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in order if name in names)


def _by_gain(order: Sequence[str], kept: set[str], glance: Judge) -> list[list[str]]:
    """Runs of the nodes that are not kept yet, those first whose return helps most."""
    free = [name for name in order if name not in kept]
    size = -(-len(free) // _RUNS)
    runs = [free[start : start + size] for start in range(0, len(free), size)]
    reports = [glance(_in_order(order, kept | set(run))) for run in runs]
    ranked = sorted(range(len(runs)), key=lambda index: reports[index].merit, reverse=True)
    return [runs[index] for index in ranked]


def _shrunk(
    order: Sequence[str], kept: set[str], given_back: list[list[str]], glance: Judge
) -> tuple[str, ...]:
    """``kept`` without the parts of what was given back that the gate does not need."""
    parts = [half for run in given_back for half in _halves(run)]
    for _ in range(_MOST_TRIES):
        if not parts:
            break
        part = parts.pop()
        without = kept - set(part)
        if glance(_in_order(order, without)).passed:
            kept = without
        else:
            parts += _halves(part)
    return _in_order(order, kept)


def _halves(part: list[str]) -> list[list[str]]:
    middle = len(part) // 2
    return [part[:middle], part[middle:]] if middle else []
