"""Let onnxslim simplify a graph; where it fails, the graph stays as it was."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

from export.errors import ExportError
from export.graph.ort_session import GraphSession
from export.graph.to_onnx import check_graph

logger = logging.getLogger(__name__)
_LIMIT_S = 600
_LEAST_SAME = 0.999  # of the values: labels on the edge between two classes may turn


def simplified(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The simplified graph, or ``graph`` itself when that is not smaller or onnxslim fails.

    It runs in a process of its own: such tools crash on some networks
    (onnxsim/onnxsim#231, #187), which must not take the export with it. It counts as failed, too,
    when the result answers noise in another way.
    """
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        try:
            onnx.save(graph, before)
            _slim(before, after)
            smaller = onnx.load(after)
            check_graph(smaller, "the simplified graph")
            _require_same_answers(graph, smaller)
        except Exception as error:  # what it leaves may be broken in any way
            reason = str(error).partition("\n")[0] or type(error).__name__
            logger.warning("not simplified, the graph stays as exported: %s", reason)
            return graph
    if len(smaller.graph.node) >= len(graph.graph.node):
        return graph
    smaller.ir_version = graph.ir_version
    return smaller


def _slim(before: Path, after: Path) -> None:
    """Run onnxslim on a file.

    Raises:
        ExportError: it fails, in its own last words.
        TimeoutExpired: it takes ten minutes.
    """
    command = [sys.executable, "-m", "onnxslim", str(before), str(after)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ExportError(lines[-1])


def _require_same_answers(graph: onnx.ModelProto, smaller: onnx.ModelProto) -> None:
    """Run both on noise.

    Raises:
        ExportError: ONNX Runtime does not take one of them, or they differ.
    """
    tensor = graph.graph.input[0].type.tensor_type
    sides = [dim.dim_value for dim in tensor.shape.dim[1:]]
    noise = np.random.default_rng(0).integers(0, 256, sides)
    noise = noise.astype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    expected, found = GraphSession(graph)(noise), GraphSession(smaller)(noise)
    if expected.keys() != found.keys():
        raise ExportError(f"onnxslim's graph returns {', '.join(found)}")
    for name, answer in expected.items():
        near = np.isclose(answer, found[name], rtol=1e-3, atol=1e-3, equal_nan=True)
        if near.mean() < _LEAST_SAME:
            raise ExportError(f"onnxslim's graph has another {name}")
