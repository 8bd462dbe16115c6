"""The machine that a figure was measured on, and whether others used it at the same time."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

_PACKAGES = (
    *("numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "opencv-python"),
    *("opencv-python-headless", "torch", "onnx", "av", "supervision", "ultralytics"),
)
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENVINO_NUM_THREADS")
_DISTURBED = 0.05  # of all cores' time


def machine_record() -> dict[str, Any]:
    """Processor, cores, clock, memory, load, limits of threads and versions of what does the work.

    What the machine does not tell is left out.
    """
    facts = {
        "processor": _processor(),
        "cores": allowed_cores(),
        "clock_mhz": _clock_mhz(),
        "clock_policy": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "power_mode": _first_line("/var/lib/nvpmodel/status"),  # Jetson's nvpmodel
        "memory_gib": _memory_gib(),
        "load_average_1min": round(os.getloadavg()[0], 2),
        "threads": {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ},
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "packages": {name: v for name in _PACKAGES if (v := _version(name)) is not None},
        "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    return {name: value for name, value in facts.items() if value not in (None, {})}


def machine_line(record: dict[str, Any]) -> str:
    """The record in one line."""
    packages = ", ".join(f"{name} {version}" for name, version in record["packages"].items())
    disturbed = " DISTURBED: others used it;" if record.get("disturbed") else ""
    return (
        f"{record['processor']}, {record['cores']} cores, load {record['load_average_1min']};"
        f"{disturbed} Python {record['python']}, {packages}; {record['measured'][:10]}"
    )


@dataclass
class Watched:
    """A machine during a measurement.

    Attributes:
        machine: the record, with ``others_share`` and ``disturbed`` when the measurement is over:
            the share of all the machine's cores' time that other processes and other guests of the
            host took, and whether that is more than 5 %. Missing where the system does not tell.
    """

    machine: dict[str, Any] = field(default_factory=machine_record)


@contextmanager
def watch() -> Iterator[Watched]:
    """Watch what else runs on the machine while something is measured."""
    watched, before = Watched(), read_usage()
    yield watched
    after = read_usage()
    if before is not None and after is not None:
        share = others_share(before, after, os.cpu_count() or 1)
        watched.machine |= {"others_share": round(share, 4), "disturbed": share > _DISTURBED}


@dataclass(frozen=True)
class Usage:
    """Times since some start, in seconds.

    Attributes:
        wall_s: of the clock.
        busy_s: all cores at work, for anybody.
        stolen_s: the host gave the cores to other guests.
        ours_s: this process and its children that have ended.
    """

    wall_s: float
    busy_s: float
    stolen_s: float
    ours_s: float


def others_share(before: Usage, after: Usage, cores: int) -> float:
    """Share of all cores' time that was not ours and not idle; 0 to 1."""
    busy = after.busy_s - before.busy_s - (after.ours_s - before.ours_s)
    lost = max(busy, 0.0) + after.stolen_s - before.stolen_s
    return min(1.0, lost / max(1e-9, cores * (after.wall_s - before.wall_s)))


def read_usage(stat: Path = Path("/proc/stat")) -> Usage | None:
    """The kernel's counters (proc(5)); None where there are none.

    Children that still run count as others: measure what they do after they have ended.
    """
    try:
        words = stat.read_text(encoding="utf-8").splitlines()[0].split()[1:9]
        ticks = [int(word) for word in words]
        user, nice, system, _idle, _iowait, irq, softirq, steal = ticks
    except (OSError, ValueError, IndexError):
        return None
    a_second = os.sysconf("SC_CLK_TCK")
    return Usage(
        time.monotonic(),
        (user + nice + system + irq + softirq) / a_second,
        stolen_s=steal / a_second,
        ours_s=sum(os.times()[:4]),
    )


def allowed_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo(name: str) -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    values = (line.partition(":")[2].strip() for line in lines if line.startswith(name))
    return next(values, None)


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _clock_mhz() -> float | None:
    clock = _cpuinfo("cpu MHz")
    return None if clock is None else round(float(clock))


def _first_line(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, IndexError):
        return None


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
