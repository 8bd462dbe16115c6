"""open_session: ONNX Runtime as this project runs graphs; backend, export and benchmarks use it."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from runtime.errors import BackendUnavailable

PROVIDER = "CPUExecutionProvider"
# x86 without VNNI adds pairs of int8 products in 16 bits, where they overflow without an error:
# 44 % of the labels of our packaged network are right then, 95 % with this
# (microsoft/onnxruntime#12072, #14642, pull 12088). It costs no time that we could measure.
EXACT_INT8 = ("session.x64quantprecision", "1")


def open_session(model: Path | bytes, num_threads: int = 0) -> onnxruntime.InferenceSession:
    """A session on the CPU.

    Args:
        model: an ONNX file, or the content of one.
        num_threads: threads of one inference; 0 lets ONNX Runtime choose.

    Raises:
        BackendUnavailable: ONNX Runtime rejects the model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3  # errors; warnings there are about its own graph passes
    options.add_session_config_entry(*EXACT_INT8)
    source, name = (model, "the graph") if isinstance(model, bytes) else (str(model), str(model))
    try:
        return onnxruntime.InferenceSession(source, options, providers=[PROVIDER])
    except Exception as error:  # its exceptions have no common base
        reason = str(error).partition("\n")[0]
        raise BackendUnavailable(
            f"ONNX Runtime {onnxruntime.__version__} rejects {name}: {reason}"
        ) from None
