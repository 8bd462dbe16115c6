"""NVIDIA's GPU, driver, CUDA and TensorRT."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from runtime.diagnosis.finding import Finding
from runtime.diagnosis.packages import installed
from runtime.gpu import cuda_of_driver, find_gpu

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
        findings = [Finding("gpu", "ok", text), *_driver()]
    libraries = [*_loaders(), *_of_search_path(), *_of_packages()]
    findings += judge_libraries(libraries)
    if gpu is not None:
        findings += judge_missing(libraries)
    findings += [_module("tensorrt", "tensorrt"), _module("tensorrt-rtx", "tensorrt_rtx")]
    bindings = installed(_BINDINGS)
    if gpu and not bindings:
        advice = "pip install pycuda, or cuda-python."
        findings.append(Finding("cuda", "note", "no Python bindings of CUDA", advice))
    findings += [Finding("cuda", "ok", f"{name} {version}") for name, version in bindings.items()]
    return findings


def _driver() -> list[Finding]:
    """The driver's version, and the latest CUDA that it takes."""
    version = cuda_of_driver()
    return [Finding("gpu", "ok", f"driver for CUDA {version} and earlier")] if version else []


def _module(name: str, module_name: str) -> Finding:
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # one that does not fit the driver raises whatever it likes
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


def _of_search_path() -> list[Path]:
    """What LD_LIBRARY_PATH puts before everything else."""
    folders = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))
    return [path for folder in folders for path in Path(folder).glob("lib*.so.*")]


def _of_packages() -> list[Path]:
    """What wheels of pip bring along, such as ``nvidia/cuda_runtime/lib``."""
    folders = {path for entry in sys.path if (path := Path(entry)).name.endswith("-packages")}
    patterns = ("tensorrt*_libs/lib*.so.*", "nvidia/*/lib/lib*.so.*")
    return [path for folder in folders for pattern in patterns for path in folder.glob(pattern)]


def _loaders() -> list[Path]:
    """What the loader finds: several versions of one library explain many odd errors."""
    # Debian keeps it where the PATH of users does not go.
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    ldconfig = shutil.which("ldconfig", path=path)
    if ldconfig is None:
        return []
    done = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=False)
    return [Path(line.split(" => ")[1]) for line in done.stdout.splitlines() if " => " in line]


def judge_libraries(paths: Iterable[Path]) -> list[Finding]:
    """One finding for each library of NVIDIA's among shared libraries on the loader's path."""
    copies: dict[str, dict[Path, str]] = {}
    for path in paths:
        if match := _LIBRARY.match(path.name):
            real = path.resolve()  # one library has several names
            longest = max(match[2], _version_in(real.name), key=len)
            copies.setdefault(match[1], {})[real] = longest
    findings = []
    for name, found in sorted(copies.items()):
        listed = ", ".join(sorted(set(found.values())))
        if len(found) > 1:
            places = ", ".join(sorted(map(str, found)))
            advice = "Keep one: the others hide it from some programs (NVIDIA/TensorRT#2041)."
            text = f"{name} {listed} in {len(found)} places: {places}"
            findings.append(Finding("cuda", "note", text, advice))
        else:
            findings.append(Finding("cuda", "ok", f"{name} {listed}"))
    return findings


_MENDED_BY = {
    "libcudart": "the CUDA runtime: on a Jetson sudo apt install nvidia-jetpack, elsewhere pip "
    "install nvidia-cuda-runtime-cu12 (or -cu13), of the CUDA that onnxruntime-gpu asks for.",
    "libcudnn": "cuDNN, which ONNX Runtime's CUDA provider needs: on a Jetson sudo apt install "
    "nvidia-jetpack, elsewhere pip install nvidia-cudnn-cu12 (or -cu13).",
}


def judge_missing(paths: Iterable[Path]) -> list[Finding]:
    """A note for each library that ONNX Runtime on a GPU wants and that is nowhere."""
    there = {match[1] for path in paths if (match := _LIBRARY.match(path.name))}
    return [
        Finding("cuda", "note", f"{name} is not found", f"Without it no CUDA provider: {mending}")
        for name, mending in _MENDED_BY.items()
        if name not in there
    ]


def _version_in(name: str) -> str:
    match = _LIBRARY.match(name)
    return match[2] if match else ""
