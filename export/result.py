"""ExportResult: what was written, and how it was checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from export.gate.argmax_cost import ArgmaxCost
from export.gate.report import ParityReport
from export.gate.scores import BundleScores
from export.precision.int8 import Int8Facts
from runtime.bundle.engine_file import EngineRecord


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Attributes:
        num_nodes: of the graph.
        size_bytes: of the ONNX file.
        parity: of the file in ONNX Runtime, against the torch model.
        single: nodes that stay in single precision on purpose, of an int8 graph those that
            multiply.
        rounding: the parity with every half value really rounded, as a GPU does.
        int8: how an int8 graph came about.
        coarse_cost: what coarse labels cost and gain.
        scores: on labelled images, where there are any.
        engine: the record of the engine beside the graph, if one was asked for.
    """

    num_nodes: int
    size_bytes: int
    parity: ParityReport
    single: tuple[str, ...] = ()
    rounding: ParityReport | None = None
    int8: Int8Facts | None = None
    coarse_cost: ArgmaxCost | None = None
    scores: BundleScores | None = None
    engine: EngineRecord | None = None

    def lines(self) -> list[str]:
        """What was found, for people."""
        lines = [self.parity.line()]
        if self.rounding is not None:
            lines.append(f"rounded as a GPU rounds: {self.rounding.line()}")
            lines.append(f"{len(self.single)} nodes stay in single precision")
        if self.int8 is not None:
            lines += self.int8.lines()
        if self.coarse_cost is not None:
            lines.append(self.coarse_cost.line())
        if self.scores is not None:
            lines.append(self.scores.line())
        return lines

    def record(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        facts: dict[str, Any] = {"parity": self.parity.record()}
        if self.rounding is not None:
            facts["parity_rounded"] = self.rounding.record()
        if self.int8 is not None:
            facts["int8"] = self.int8.record()
        if self.single:
            facts["single_precision"] = self.single
        if self.coarse_cost is not None:
            facts["coarse_labels"] = self.coarse_cost.record()
        if self.scores is not None:
            facts["scores"] = self.scores.record()
        return facts
