"""Which node of a graph makes a conversion fail its gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx

from export.gate.parity import ParityReport

Compare = Callable[[onnx.ModelProto], ParityReport]


def first_failing(
    nodes: Sequence[str], judge: Callable[[Sequence[str]], ParityReport]
) -> str | None:
    """The node with which a conversion from front to back first fails the gate.

    Agreement falls, by and large, as more of a graph is converted; bisection finds a place where it
    crosses the gate in log2 of as many conversions as there are nodes.

    Args:
        nodes: names of what was converted, in the order of the graph.
        judge: converts these alone and compares.

    Returns:
        the name, or None when the conversion of all of them passes.
    """
    if judge(nodes).passed:
        return None
    passing, failing = 0, len(nodes)
    while failing - passing > 1:
        middle = (passing + failing) // 2
        if judge(nodes[:middle]).passed:
            passing = middle
        else:
            failing = middle
    return nodes[failing - 1]
