"""Let onnxslim simplify a graph; where it fails, the graph stays as it was."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx

from export.errors import ExportError
from export.onnx_graph import check_graph

logger = logging.getLogger(__name__)
_LIMIT_S = 600


def simplified(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The simplified graph, or ``graph`` itself when that is not smaller or onnxslim fails.

    It runs in a process of its own: such tools crash on some networks
    (onnxsim/onnxsim#231, #187), which must not take the export with it. Whether the result still
    answers the same is for the gate to say.
    """
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        onnx.save(graph, before)
        command = [sys.executable, "-m", "onnxslim", str(before), str(after)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_LIMIT_S, check=False
            )
            if done.returncode:
                lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
                raise ExportError(lines[-1])
            smaller = onnx.load(after)
            check_graph(smaller, "the simplified graph")
        except (ExportError, OSError, subprocess.TimeoutExpired) as error:
            logger.warning("not simplified, the graph stays as exported: %s", error)
            return graph
    if len(smaller.graph.node) >= len(graph.graph.node):
        return graph
    smaller.ir_version = graph.ir_version
    return smaller
