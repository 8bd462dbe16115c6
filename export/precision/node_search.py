"""Which nodes must keep a higher precision: a search that the gate drives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from export.gate.parity import ParityReport
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
    of the worst have to go back. Where the worse half does not pass, the ranking, which saw few
    images, may be wrong: the other half is tried, too.

    Args:
        order: names of all nodes, as they run.
        start: those that keep the higher precision from the beginning.
        judge: the gate.
        glance: the same on few images, for the ranking.
        progress: wraps the ranking, a step a node.

    Returns:
        the nodes to keep, in order, and their report; ``start`` and a failed one if none passes.
    """

    def kept(names: Collection[str]) -> tuple[str, ...]:
        return tuple(name for name in order if name in start or name in names)

    report = judge(kept(()))
    free = [name for name in order if name not in start]
    most = int(_MOST_KEPT * len(order)) - (len(order) - len(free))
    if report.passed or most < 1:
        return kept(()), report
    ranked = _by_harm(free, lambda name: glance(kept(set(free) - {name})), progress)
    for some in (ranked[:most], ranked[most : 2 * most]):
        if (enough := judge(kept(some))).passed:
            judged = lambda count, some=some: judge(kept(some[:count]))
            count, found = _fewest(len(some), enough, judged)
            return kept(some[:count]), found
    return kept(()), report


def _by_harm(
    free: Sequence[str], alone: Callable[[str], ParityReport], progress: Progress
) -> list[str]:
    """Nodes by what a graph is worth in which each alone is converted, the least first."""
    merits = {name: alone(name).merit for name in progress(free)}
    return sorted(free, key=merits.__getitem__)


def _fewest(
    passing: int, report: ParityReport, judge: Callable[[int], ParityReport]
) -> tuple[int, ParityReport]:
    """A count that passes where one less fails, and its report, from a count that passes."""
    failing = 0
    while passing - failing > 1:
        middle = (passing + failing) // 2
        found = judge(middle)
        if found.passed:
            passing, report = middle, found
        else:
            failing = middle
    return passing, report
