"""Which nodes lose accuracy in a conversion: the fewest to keep, and the first to fail."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import onnx

from export.gate.report import ParityReport
from sfda_edge.runs.progress import Progress, silent

# Compares a graph.
Compare = Callable[[onnx.ModelProto], ParityReport]
# Converts nodes, by the names of those that are kept or converted, and compares.
CompareNodes = Callable[[Sequence[str]], ParityReport]
# A search that would keep more than this share of the nodes has failed.
_MOST_KEPT = 0.5


def first_failing(nodes: Sequence[str], compare: CompareNodes) -> str | None:
    """The node with which a conversion from front to back first fails the gate.

    Agreement falls, by and large, as more of a graph is converted; bisection finds a place where it
    crosses the gate, in log2 of as many conversions as there are nodes.

    Args:
        nodes: names of what was converted, in the order of the graph.
        compare: converts only these, and compares.

    Returns:
        the name, or None when the conversion of all of them passes.
    """
    if compare(nodes).passed:
        return None
    passing, failing = 0, len(nodes)
    while failing - passing > 1:
        middle = (passing + failing) // 2
        if compare(nodes[:middle]).passed:
            passing = middle
        else:
            failing = middle
    return nodes[failing - 1]


def nodes_to_keep(
    order: Sequence[str],
    start: Collection[str],
    *,
    compare: CompareNodes,
    quick_compare: CompareNodes,
    progress: Progress = silent,
) -> tuple[tuple[str, ...], ParityReport]:
    """Keep nodes in the higher precision until the gate is passed, and no more than needed.

    Nodes are ranked by the accuracy that each loses when only it is converted; bisection finds how
    many of the worst have to be kept. Where the worse half does not pass, the ranking, which is of
    few images, may be wrong: the other half is tried, too.

    Args:
        order: names of all nodes, as they run.
        start: those that are kept from the beginning.
        compare: converts all nodes but these, and compares.
        quick_compare: the same on few images, for the ranking.
        progress: wraps the ranking, a step a node.

    Returns:
        the nodes to keep, in order, and their report; ``start`` and a failed one if none passes.
    """

    def kept(names: Collection[str]) -> tuple[str, ...]:
        return tuple(name for name in order if name in start or name in names)

    report = compare(kept(()))
    free = [name for name in order if name not in start]
    most = int(_MOST_KEPT * len(order)) - (len(order) - len(free))
    if report.passed or most < 1:
        return kept(()), report
    alone = lambda name: quick_compare(kept(set(free) - {name}))
    keys = {name: alone(name).rank_key for name in progress(free)}
    ranked = sorted(free, key=keys.__getitem__)  # the worst first
    for some in (ranked[:most], ranked[most : 2 * most]):
        if (enough := compare(kept(some))).passed:
            counted = lambda count, some=some: compare(kept(some[:count]))
            count, found = _fewest(len(some), enough, counted)
            return kept(some[:count]), found
    return kept(()), report


def _fewest(
    passing: int, report: ParityReport, compare: Callable[[int], ParityReport]
) -> tuple[int, ParityReport]:
    """A count that passes where one less fails, and its report, from a count that passes."""
    failing = 0
    while passing - failing > 1:
        middle = (passing + failing) // 2
        found = compare(middle)
        if found.passed:
            passing, report = middle, found
        else:
            failing = middle
    return passing, report
