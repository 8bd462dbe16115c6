"""NVIDIA's GPU, driver, CUDA and TensorRT."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from runtime.diagnosis.finding import Finding
from runtime.diagnosis.packages import installed
from runtime.gpu import find_gpu

_BINDINGS = ("pycuda", "cuda-python", "cuda-bindings")
_LIBRARY = re.compile(r"^(lib(?:nvinfer|cudart|cudnn|tensorrt_rtx))\.so\.(\d+(?:\.\d+)*)$")


def look() -> list[Finding]:
    """GPU, CUDA libraries, TensorRT and its bindings."""
    gpu = find_gpu()
    if gpu is None:
        advice = "On a machine with an NVIDIA GPU: install its driver (nvidia-smi must list it)."
        findings = [Finding("gpu", "note", "no NVIDIA GPU or no driver", advice)]
    else:
        text = f"{gpu.name}, compute capability {gpu.compute_capability}"
        findings = [Finding("gpu", "ok", text)]
    findings += judge_libraries(_libraries())
    findings += [_module("tensorrt", "tensorrt"), _module("tensorrt-rtx", "tensorrt_rtx")]
    bindings = installed(_BINDINGS)
    if gpu and not bindings:
        advice = "pip install pycuda, or cuda-python."
        findings.append(Finding("cuda", "note", "no Python bindings of CUDA", advice))
    findings += [Finding("cuda", "ok", f"{name} {version}") for name, version in bindings.items()]
    return findings


def _module(name: str, module_name: str) -> Finding:
    try:
        module = importlib.import_module(module_name)
    except (ImportError, OSError) as error:
        return Finding(name, "note", f"does not start: {error}", _advice(name))
    if not hasattr(module, "Builder"):
        return Finding(name, "note", "a folder of that name without the library", _advice(name))
    return Finding(name, "ok", f"{module.__version__} ({module.__file__})")


def _advice(name: str) -> str:
    if name == "tensorrt-rtx":
        return "For engines of GeForce RTX GPUs: pip install 'sfda-edge[tensorrt-rtx]'."
    return (
        "For engines; on a Jetson it is JetPack's: sudo apt install python3-libnvinfer, and a "
        "virtual environment with --system-site-packages; elsewhere pip install tensorrt."
    )


def _libraries() -> list[Path]:
    """What the loader finds: several versions of one library explain many odd errors."""
    if shutil.which("ldconfig") is None:
        return []
    done = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=False)
    return [Path(line.split(" => ")[1]) for line in done.stdout.splitlines() if " => " in line]


def judge_libraries(paths: Iterable[Path]) -> list[Finding]:
    """One finding for each library of NVIDIA's among shared libraries on the loader's path."""
    versions: dict[str, set[str]] = {}
    for path in paths:
        if match := _LIBRARY.match(path.name):
            versions.setdefault(match[1], set()).add(match[2].split(".")[0])
    findings = []
    for name, majors in sorted(versions.items()):
        listed = ", ".join(sorted(majors))
        if len(majors) > 1:
            advice = "Keep one: others shadow it for some programs (NVIDIA/TensorRT#2041)."
            findings.append(Finding("cuda", "note", f"{name} in versions {listed}", advice))
        else:
            findings.append(Finding("cuda", "ok", f"{name} {listed}"))
    return findings
