"""Which nodes must keep a higher precision: a search that the gate drives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from export.parity import ParityReport
from sfda_edge.data.loading import Progress, silent

# Converts all nodes but these, and compares.
Judge = Callable[[Sequence[str]], ParityReport]
# A search that has given this share of the nodes back to the higher precision has failed.
_MOST_KEPT = 0.5


def nodes_to_keep(
    order: Sequence[str],
    start: Collection[str],
    judge: Judge,
    glance: Judge,
    progress: Progress = silent,
) -> tuple[tuple[str, ...], ParityReport]:
    """Give nodes back to the higher precision until the gate is passed, and no more than it takes.

    Nodes are ranked by the harm that each does when it is converted alone; bisection finds how many
    of the worst have to go back.

    Args:
        order: names of all nodes, as they run.
        start: those that keep the higher precision from the beginning.
        judge: the gate.
        glance: the same on few images, for the ranking.
        progress: wraps the ranking, a step a node.

    Returns:
        the nodes to keep, in order, and their report; it may have failed.
    """

    def with_start(names: Collection[str]) -> tuple[str, ...]:
        return tuple(name for name in order if name in start or name in names)

    report = judge(with_start(()))
    free = [name for name in order if name not in start]
    most = int(_MOST_KEPT * len(order)) - (len(order) - len(free))
    if report.passed or most < 1:
        return with_start(()), report
    worst = _by_harm(free, with_start, glance, progress)
    kept = with_start(worst[:most])
    tried = judge(kept)
    if not tried.passed:
        return (kept, tried) if tried.merit > report.merit else (with_start(()), report)
    failing, passing = 0, most
    while passing - failing > 1:
        middle = (passing + failing) // 2
        fewer = with_start(worst[:middle])
        found = judge(fewer)
        if found.passed:
            passing, kept, tried = middle, fewer, found
        else:
            failing = middle
    return kept, tried


def _by_harm(
    free: Sequence[str],
    with_start: Callable[[Collection[str]], tuple[str, ...]],
    glance: Judge,
    progress: Progress,
) -> list[str]:
    """Nodes by how little a graph is worth in which each alone is converted, the worst first."""
    merits = {}
    for name in progress(free):
        merits[name] = glance(with_start(set(free) - {name})).merit
    return sorted(free, key=merits.__getitem__)
