"""The machine that a figure was measured on, as a record."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

_PACKAGES = ("numpy", "onnxruntime", "opencv-python", "opencv-python-headless", "torch", "onnx")


def machine_record() -> dict[str, Any]:
    """Processor, cores, memory, load and the versions of what does the work."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "load_average_1min": round(os.getloadavg()[0], 2),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "packages": {name: v for name in _PACKAGES if (v := _version(name)) is not None},
        "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def machine_line(record: dict[str, Any]) -> str:
    """The record in one line."""
    packages = ", ".join(f"{name} {version}" for name, version in record["packages"].items())
    return (
        f"{record['processor']}, {record['cores']} cores, load {record['load_average_1min']}; "
        f"Python {record['python']}, {packages}; {record['measured'][:10]}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
