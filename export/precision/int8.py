"""int8 in the graph: Q/DQ pairs around the nodes in int8, calibrated on target frames."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx

from export.errors import ExportError
from export.gate.report import ParityReport
from export.graph.ort_session import float_tensors, median_ms
from export.precision.calibration import RULES, Limits, calibrate, require_frames
from export.precision.half_graph import to_fp16
from export.precision.int8_graph import (
    CUTTING,
    quantisable_nodes,
    quantised_graph,
    through_activations,
)
from export.precision.node_search import Compare, first_failing, nodes_to_keep
from sfda_edge.runs.progress import Progress, silent

_MULTIPLYING = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


@dataclass(frozen=True, eq=False, kw_only=True)
class Quantised:
    """What the search found.

    Attributes:
        graph: with Q/DQ pairs.
        source: the graph in single precision that it was made from.
        rule: of calibration, the best of ``tried``.
        tried: label agreement of every rule with everything quantised.
        limits: of that rule.
        int32_bias: as ``quantised_graph``.
        kept: names of nodes that stay in floating point, of those that could be quantised.
        quantised: names of the others.
        single: names of all nodes that multiply and are not quantised.
        parity: of the graph.
        qat_steps: of quantisation-aware fine-tuning.
    """

    graph: onnx.ModelProto
    source: onnx.ModelProto
    rule: str
    tried: dict[str, float]
    limits: Limits
    int32_bias: bool
    kept: tuple[str, ...]
    quantised: tuple[str, ...]
    single: tuple[str, ...]
    parity: ParityReport
    qat_steps: int = 0

    def first_failing(self, compare: Compare) -> str | None:
        """The node with which quantising from front to back first fails the gate."""

        def compare_quantised(some: Sequence[str]) -> ParityReport:
            rest = [name for name in self.quantised if name not in set(some)]
            kept = [*self.kept, *rest]
            return compare(quantised_graph(self.source, self.limits, kept, self.int32_bias))

        return first_failing(self.quantised, compare_quantised)


@dataclass(frozen=True, kw_only=True)
class Int8Facts:
    """What an int8 graph is like, for manifest, card and people.

    Attributes:
        rule: of calibration.
        tried: label agreement of every rule, with everything quantised.
        kept: names of nodes that stay in floating point.
        num_quantised: nodes in int8.
        int8_ms, fp16_ms, fp32_ms: median time of a frame in ONNX Runtime here, interleaved;
            fp16 with every node in half, None where the graph cannot be in half.
        qat_steps: of quantisation-aware fine-tuning; 0 if it was not needed.
    """

    rule: str
    tried: dict[str, float]
    kept: tuple[str, ...]
    num_quantised: int
    int8_ms: float
    fp16_ms: float | None
    fp32_ms: float
    qat_steps: int

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        tried = ", ".join(f"{rule} {100 * value:.1f} %" for rule, value in self.tried.items())
        tuned = f", after {self.qat_steps} steps of fine-tuning" if self.qat_steps else ""
        return [
            f"calibration: {self.rule} (everything in int8: {tried})",
            f"{self.num_quantised} nodes in int8, {len(self.kept)} kept in float{tuned}",
            f"ONNX Runtime on this CPU: {timing_text(self.record())}",
        ]


def timing_text(facts: dict[str, Any]) -> str:
    """The times of a record of ``Int8Facts``, and whether int8 is faster, for people."""
    times_ms = {name: facts[f"{name}_ms"] for name in ("int8", "fp16", "fp32")}
    times_ms = {name: ms for name, ms in times_ms.items() if ms is not None}
    faster = [name for name, ms in times_ms.items() if ms < times_ms["int8"]]
    verdict = f"slower than {' and '.join(faster)}" if faster else "the fastest"
    listed = ", ".join(f"{ms:.1f} ms in {name}" for name, ms in times_ms.items())
    return f"a frame takes {listed}: int8 is {verdict}"


def int8_facts(found: Quantised, fp32: onnx.ModelProto, images: Sequence[np.ndarray]) -> Int8Facts:
    """Facts of a search's result; times it against the fp32 graph, and its source in half."""
    graphs = [found.graph, fp32]
    with contextlib.suppress(ExportError):  # some graphs have no half: those with control flow
        graphs.append(to_fp16(found.source))
    int8_ms, fp32_ms, *fp16_ms = median_ms(graphs, images)
    return Int8Facts(
        rule=found.rule,
        tried={rule: round(value, 6) for rule, value in found.tried.items()},
        kept=found.kept,
        num_quantised=len(found.quantised),
        int8_ms=round(int8_ms, 3),
        fp16_ms=round(fp16_ms[0], 3) if fp16_ms else None,
        fp32_ms=round(fp32_ms, 3),
        qat_steps=found.qat_steps,
    )


def to_int8(
    graph: onnx.ModelProto,
    calibration: Sequence[np.ndarray],
    *,
    compare: Compare,
    quick_compare: Compare,
    int32_bias: bool = True,
    before_search: Callable[[onnx.ModelProto], None] = lambda _: None,
    progress: Progress = silent,
) -> Quantised:
    """Calibrate by every rule, take the best, and keep nodes that lose accuracy in float.

    Args:
        graph: in single precision.
        calibration: target frames, (H, W, 3) uint8.
        compare: compares a graph.
        quick_compare: the same on few images.
        int32_bias: as ``quantised_graph``.
        before_search: gets the graph with everything in int8, and may reject it.
        progress: wraps the search's ranking.

    Returns:
        the best that was found; its parity may have failed.

    Raises:
        ExportError: too few frames, or noise.
    """
    require_frames(calibration)
    quantisable = quantisable_nodes(graph)
    around = {name for node in quantisable for name in (*node.input, *node.output)}
    # What an activation cuts off is known by its answer.
    around |= {name for node in graph.graph.node if node.op_type in CUTTING for name in node.output}
    tensors = [name for name in float_tensors(graph) if name in around]
    limits = {
        rule: through_activations(graph, found)
        for rule, found in calibrate(graph, calibration, tensors).items()
    }
    order = [node.name for node in quantisable]

    # The same graph is compared, timed, searched and returned; ONNX Runtime takes seconds for it.
    @functools.lru_cache(maxsize=len(RULES) + 1)
    def made(rule: str, kept: tuple[str, ...] = ()) -> onnx.ModelProto:
        return quantised_graph(graph, limits[rule], kept, int32_bias)

    reports = {rule: compare(made(rule)) for rule in RULES}
    best = max(RULES, key=lambda rule: reports[rule].rank_key)
    before_search(made(best))
    kept, report = nodes_to_keep(
        order,
        (),
        compare=lambda some: compare(made(best, tuple(some))),
        quick_compare=lambda some: quick_compare(made(best, tuple(some))),
        progress=progress,
    )
    quantised = tuple(name for name in order if name not in set(kept))
    multiplying = [node.name for node in graph.graph.node if node.op_type in _MULTIPLYING]
    return Quantised(
        graph=made(best, tuple(kept)),
        source=graph,
        rule=best,
        tried={rule: one.label_agreement for rule, one in reports.items()},
        limits=limits[best],
        int32_bias=int32_bias,
        kept=kept,
        quantised=quantised,
        single=tuple(name for name in multiplying if name not in set(quantised)),
        parity=report,
    )
