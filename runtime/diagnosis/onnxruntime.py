"""ONNX Runtime: which of its wheels is installed, and which providers really start."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from runtime.bundle.manifest import Manifest, read_manifest
from runtime.diagnosis.finding import Finding, Verdict
from runtime.diagnosis.packages import one_flavour
from runtime.errors import ManifestError
from runtime.packaged import BUNDLE_DIR

# They all unpack into the folder onnxruntime (microsoft/onnxruntime#26996).
WHEELS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-qnn",
)
CPU = "CPUExecutionProvider"
# Not for live frames: it sends them to a service.
_REMOTE = {"AzureExecutionProvider"}


def look() -> list[Finding]:
    """The flavour, and every provider tried with the packaged model."""
    flavour, findings = one_flavour("onnxruntime", WHEELS)
    try:
        library = importlib.import_module("onnxruntime")
        providers = [name for name in library.get_available_providers() if name not in _REMOTE]
    except Exception as error:  # one of another ABI raises whatever it likes
        advice = "pip install onnxruntime, or onnxruntime-gpu on a PC with an NVIDIA GPU."
        return [*findings, Finding("onnxruntime", "problem", f"does not start: {error}", advice)]
    findings.append(Finding("onnxruntime", "ok", f"{library.__version__} ({flavour})"))
    try:
        manifest = read_manifest(BUNDLE_DIR)
    except ManifestError as error:
        advice = "Install sfda-edge again; no provider could be tried."
        return [*findings, Finding("onnxruntime", "problem", str(error), advice)]
    return findings + [_tried(library, provider, manifest) for provider in providers]


def _tried(library: Any, provider: str, manifest: Manifest) -> Finding:
    """A provider that is available need not start: then ONNX Runtime takes the CPU and says little.

    So its fallback is forbidden, and one image goes through the packaged model.
    """
    options = library.SessionOptions()
    options.log_severity_level = 4
    if provider != CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    image = np.zeros((1, *manifest.input_hw, 3), np.uint8)
    try:
        model = str(BUNDLE_DIR / manifest.model_file)
        session = library.InferenceSession(model, options, providers=[provider])
        session.run(None, {session.get_inputs()[0].name: image})
    except Exception as error:  # its exceptions have no common base
        reason = str(error).strip().partition("\n")[0]
        advice = (
            "Its libraries are missing or of another version: compare CUDA, cuDNN and TensorRT "
            "with the table of the provider's documentation."
        )
        verdict: Verdict = "problem" if provider == CPU else "note"  # all of us need the CPU's
        return Finding("onnxruntime", verdict, f"{provider} does not start: {reason}", advice)
    return Finding("onnxruntime", "ok", f"{provider} starts and runs the packaged model")
