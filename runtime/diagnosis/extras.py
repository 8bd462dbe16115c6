"""Libraries that parts of a stream need: videos, recordings, the page, OpenVINO."""

from __future__ import annotations

import importlib
import platform

from runtime.diagnosis.finding import Finding
from runtime.diagnosis.packages import installed

# An extra of setup.cfg, its modules by the distribution that has them, and what is missing without.
EXTRAS = {
    "video": ({"av": "av"}, "no gst: and no csi0, and videos are read and written by OpenCV"),
    "record": (
        {
            "mcap": "mcap.reader",
            "mcap-protobuf-support": "mcap_protobuf.writer",
            "foxglove-schemas-protobuf": "foxglove_schemas_protobuf.CompressedImage_pb2",
        },
        "no --record and no replay:",
    ),
    "serve": (
        {
            "starlette": "starlette",
            "uvicorn": "uvicorn",
            "websockets": "websockets",
            "prometheus-client": "prometheus_client",
        },
        "no --serve",
    ),
    "openvino": ({"openvino": "openvino"}, "no --backend openvino"),
}


def look() -> list[Finding]:
    """Whether the libraries of each extra start; OpenVINO's on x86 alone."""
    x86 = platform.machine() in ("x86_64", "AMD64")
    return [_looked(extra) for extra in EXTRAS if extra != "openvino" or x86]


def _looked(extra: str) -> Finding:
    modules, without = EXTRAS[extra]
    failed = [
        f"{name}: {reason}" for name, module in modules.items() if (reason := _why_not(module))
    ]
    if not failed:
        found = ", ".join(f"{name} {version}" for name, version in installed(list(modules)).items())
        return Finding(extra, "ok", found)
    said = f"{without} ({'; '.join(failed)})"
    return Finding(extra, "note", said, f"pip install 'sfda-edge[{extra}]'")


def _why_not(module: str) -> str:
    """Why a module does not start; empty if it does."""
    try:
        importlib.import_module(module)
    except Exception as error:  # one of another ABI raises whatever it likes
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return ""
