"""open_session: ONNX Runtime as backends, export and benchmarks run graphs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from runtime.errors import BackendUnavailable

CPU = "CPUExecutionProvider"
# x86 without VNNI adds pairs of int8 products in 16 bits, where they overflow without an error:
# 44 % of the labels of our packaged network are right then, 95 % with this
# (microsoft/onnxruntime#12072, #14642, pull 12088). It costs no time that we could measure.
EXACT_INT8 = ("session.x64quantprecision", "1")
Provider = tuple[str, dict[str, Any]]


def open_session(
    model: Path | bytes,
    num_threads: int = 0,
    providers: Sequence[Provider] = ((CPU, {}),),
    profile_prefix: Path | None = None,
    *,
    spin: bool = True,
) -> onnxruntime.InferenceSession:
    """A session on the CPU, or on other providers and nowhere else.

    Args:
        model: an ONNX file, or the content of one.
        num_threads: threads of one inference; 0 lets ONNX Runtime choose.
        providers: names with options, the preferred one first.
        profile_prefix: where to begin a profile.
        spin: let threads wait for the next inference in a loop: fastest alone, but they take the
            processor from all else. Within an inference they spin in any case.

    Raises:
        BackendUnavailable: ONNX Runtime rejects the model, or a provider does not start.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads or _fewer_threads()
    options.log_severity_level = 3  # errors; warnings there are about its own graph passes
    options.add_session_config_entry(*EXACT_INT8)
    options.add_session_config_entry("session.force_spinning_stop", str(int(not spin)))
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    if providers[0][0] != CPU:  # or it would take the CPU and say little
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    source, name = (model, "the graph") if isinstance(model, bytes) else (str(model), str(model))
    try:
        return onnxruntime.InferenceSession(source, options, providers=list(providers))
    except Exception as error:  # its exceptions have no common base
        reason = str(error).partition("\n")[0]
        raise BackendUnavailable(
            f"ONNX Runtime {onnxruntime.__version__} rejects {name}: {reason}"
        ) from None


def _fewer_threads() -> int:
    """As many as this process may use, where those are not all: ONNX Runtime counts the machine's.

    Its own choice, 0, pins a thread to each core of the machine, whatever the process is kept to.
    """
    if not hasattr(os, "sched_getaffinity"):
        return 0
    allowed = len(os.sched_getaffinity(0))
    return allowed if allowed < (os.cpu_count() or allowed) else 0
