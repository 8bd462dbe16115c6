"""Profiles: the kinds of machines that a bundle can run on, and the ONNX file that they need."""

from __future__ import annotations

from dataclasses import dataclass

from export.errors import ExportError


@dataclass(frozen=True)
class Profile:
    """A kind of machine.

    Attributes:
        machine: for people.
        opset: of the graph. The lowest that the exporter writes is 18.
        ir_version: the newest file format that the oldest supported library there reads; onnx
            itself would write a newer one (microsoft/onnxruntime#23602, #20559).
        engine: the library whose engines run there, if any.
    """

    machine: str
    opset: int
    ir_version: int
    engine: str | None = None


# ONNX Runtime quantises up to opset 20 (its static quantiser takes no 21).
CPU = Profile("any computer, ONNX Runtime 1.20 or later", 18, 10)
PROFILES = {
    "cpu": CPU,
    "x86-cuda12": Profile(
        "PC with an NVIDIA GPU, CUDA 12: onnxruntime-gpu 1.20 to 1.26, TensorRT 10",
        18,
        10,
        "tensorrt",
    ),
    "x86-cuda13": Profile(
        "PC with an NVIDIA GPU, CUDA 13: onnxruntime-gpu 1.27 or later, TensorRT 10.13 or 11",
        20,
        10,
        "tensorrt",
    ),
    "jetpack6": Profile(
        "Jetson Orin, JetPack 6.1 or 6.2: TensorRT 10.3, Python 3.10", 18, 9, "tensorrt"
    ),
    "jetpack7": Profile(
        "Jetson Orin or Thor, JetPack 7: TensorRT 10.13 or later, Python 3.12",
        20,
        10,
        "tensorrt",
    ),
    "rtx": Profile("PC with a GeForce RTX GPU: TensorRT for RTX", 20, 10, "tensorrt-rtx"),
}


def find_profile(name: str) -> Profile:
    """A profile by name.

    Raises:
        ExportError: there is none.
    """
    if name not in PROFILES:
        raise ExportError(f"unknown profile '{name}'; known: {', '.join(PROFILES)}")
    return PROFILES[name]
