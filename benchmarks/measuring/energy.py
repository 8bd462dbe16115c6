"""Energy of a measurement, where the machine shows its power. Nothing is estimated."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

SYS = Path("/sys")
_PERIOD_S = 0.1


@dataclass
class Energy:
    """What a measurement took.

    Attributes:
        joules: in all, what the machine takes when idle included; None until it is over, and where
            the sensor failed meanwhile.
    """

    joules: float | None = None


@dataclass(frozen=True)
class Meter:
    """A sensor: either a counter of joules, or a power that is read every 100 ms.

    Attributes:
        name: for records.
        read: joules so far, or watts now; raises what its library raises.
        counts: it is a counter, which starts again from 0 after ``range_joules``.
    """

    name: str
    read: Callable[[], float]
    counts: bool = False
    range_joules: float = float("inf")

    @contextmanager
    def measure(self) -> Iterator[Energy]:
        """Measure what is done inside. A counter must not wrap more than once: minutes at most."""
        energy = Energy()
        with self._count(energy) if self.counts else self._sample(energy):
            yield energy

    @contextmanager
    def _count(self, energy: Energy) -> Iterator[None]:
        before = self._read()
        yield
        after = self._read()
        if before is not None and after is not None:
            taken = after - before
            energy.joules = taken if taken >= 0 else taken + self.range_joules

    @contextmanager
    def _sample(self, energy: Energy) -> Iterator[None]:
        done, found = threading.Event(), list[tuple[float, float | None]]()

        def sample() -> None:
            over = False
            while not over:
                over = done.wait(_PERIOD_S)
                found.append((time.monotonic(), self._read()))

        found.append((time.monotonic(), self._read()))
        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        energy.joules = _integral(found)

    def _read(self) -> float | None:
        try:
            return self.read()
        except Exception:  # a library's own; one reading that fails makes the figure unknown
            return None


def _integral(found: list[tuple[float, float | None]]) -> float | None:
    """Joules from times and watts, by trapezia; None if a reading is missing."""
    joules = 0.0
    for (before_s, before), (now_s, now) in pairwise(found):
        if before is None or now is None:
            return None
        joules += (before + now) / 2 * (now_s - before_s)
    return joules


def find_meter(*, on_gpu: bool, sys: Path = SYS) -> Meter | None:
    """The sensor of what does the work; None where the machine shows none.

    Args:
        on_gpu: the model runs on a GPU: NVML; else the processor package's RAPL. Jetson's INA3221
            measures the whole module and is taken for both.
        sys: where the kernel's files are.
    """
    return _jetson(sys) or (_nvidia() if on_gpu else _rapl(sys))


def _jetson(sys: Path) -> Meter | None:
    """The module's input rail: VDD_IN on Orin, VIN_SYS_5V0 on Xavier (NVIDIA's power guide)."""
    for label in sorted((sys / "class" / "hwmon").glob("hwmon*/in*_label")):
        if label.read_text(encoding="utf-8").strip() not in ("VDD_IN", "VIN_SYS_5V0"):
            continue
        number = label.name.removeprefix("in").removesuffix("_label")
        volts, amperes = (label.with_name(f"{kind}{number}_input") for kind in ("in", "curr"))
        name = f"INA3221 {label.read_text(encoding='utf-8').strip()}"
        meter = Meter(name, partial(_watts, volts, amperes))
        if _readable(meter):
            return meter
    return None


def _rapl(sys: Path) -> Meter | None:
    """The first package's counter (Linux power capping framework); newer kernels ask for root."""
    zone = sys / "class" / "powercap" / "intel-rapl:0"
    try:
        meter = Meter(
            f"RAPL {(zone / 'name').read_text(encoding='utf-8').strip()}",
            lambda: _number(zone / "energy_uj") * 1e-6,
            counts=True,
            range_joules=_number(zone / "max_energy_range_uj") * 1e-6,
        )
    except (OSError, ValueError):
        return None
    return meter if _readable(meter) else None


def _nvidia() -> Meter | None:
    """The first GPU's power, by NVML (pynvml, package nvidia-ml-py)."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        meter = Meter("NVML GPU 0", lambda: pynvml.nvmlDeviceGetPowerUsage(handle) * 1e-3)
        return meter if _readable(meter) else None
    except Exception:  # NVMLError is known only once the library is there
        return None


def _watts(millivolts: Path, milliamperes: Path) -> float:
    return _number(millivolts) * _number(milliamperes) * 1e-6


def _readable(meter: Meter) -> bool:
    return meter._read() is not None


def _number(path: Path) -> float:
    return float(path.read_text(encoding="utf-8"))
