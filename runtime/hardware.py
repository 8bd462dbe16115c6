"""Temperature, clocks, power and throttling, as Linux shows them in sysfs. On Jetson that is all.

No library is needed, and nothing runs as root. A machine that does not show a figure, such as a
container or a virtual machine, simply has none.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SYS = Path("/sys")
# What cooling devices that slow something down are called, on x86, Jetson and other boards.
_SLOWING = ("processor", "cpufreq", "devfreq", "powerclamp", "throttle", "hot-surface")


@dataclass(frozen=True)
class Hardware:
    """The figures now, by the name that the kernel gives to each part.

    Attributes:
        temperatures_c: of each thermal zone.
        clocks_mhz: of each group of processor cores, and of the GPU.
        most_mhz: the highest clocks that the kernel allows now; they sink when it throttles.
        power_w: of each rail that has a sensor.
        throttling: share of its most that each cooling device slows its part down; 0 is not at all.
    """

    temperatures_c: dict[str, float] = field(default_factory=dict)
    clocks_mhz: dict[str, float] = field(default_factory=dict)
    most_mhz: dict[str, float] = field(default_factory=dict)
    power_w: dict[str, float] = field(default_factory=dict)
    throttling: dict[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Plain values for JSON; only what there is."""
        figures = vars(self).items()
        rounded = {
            name: {part: round(value, 3) for part, value in parts.items()}
            for name, parts in figures
        }
        return {name: parts for name, parts in rounded.items() if parts}


def read_hardware(sys_dir: Path = _SYS) -> Hardware:
    """Read all figures; a few milliseconds."""
    clocks, most = _clocks(sys_dir)
    return Hardware(
        temperatures_c=_temperatures(sys_dir / "class/thermal"),
        clocks_mhz=clocks,
        most_mhz=most,
        power_w=dict(_rails(sys_dir / "class/hwmon")),
        throttling=dict(_throttling(sys_dir / "class/thermal")),
    )


def _number(path: Path) -> float | None:
    """What a file of one number holds; some fail while their part is asleep."""
    with contextlib.suppress(OSError, ValueError):
        number = float(path.read_text())
        return number if math.isfinite(number) else None
    return None


def _name(path: Path) -> str:
    """The text of a file in one line; the folder's name without it."""
    with contextlib.suppress(OSError, ValueError):
        return " ".join(path.read_text().split()) or path.parent.name
    return path.parent.name


def _temperatures(folder: Path) -> dict[str, float]:
    """Degrees of each thermal zone by its type; further ones of a type get their numbers."""
    found: dict[str, float] = {}
    for zone in sorted(folder.glob("thermal_zone*")):
        if (number := _number(zone / "temp")) is not None:
            name = _name(zone / "type")
            found[name if name not in found else f"{name} {zone.name}"] = number * 1e-3
    return found


def _clocks(sys_dir: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Clocks and their limits: of cores in kHz, of others in Hz."""
    clocks: dict[str, float] = {}
    most: dict[str, float] = {}
    groups: list[tuple[Path, str, str, float]] = [
        (policy, "scaling_cur_freq", "scaling_max_freq", 1e-3)
        for policy in sorted(sys_dir.glob("devices/system/cpu/cpufreq/policy*"))
    ]
    groups += [
        (part, "cur_freq", "max_freq", 1e-6)
        for part in sorted(sys_dir.glob("class/devfreq/*"))
        if "gpu" in part.name or part.name.endswith((".gv11b", ".ga10b", ".gb10b"))
    ]
    for part, now, limit, factor in groups:
        for name, into in ((now, clocks), (limit, most)):
            if (number := _number(part / name)) is not None:
                into[part.name] = number * factor
    return clocks, most


def _rails(folder: Path) -> Iterator[tuple[str, float]]:
    """Watts of each rail of a power sensor: millivolts times milliamperes."""
    for sensor in sorted(folder.glob("hwmon*")):
        for current in sorted(sensor.glob("curr*_input")):
            number = current.name.removeprefix("curr").removesuffix("_input")
            amperes, volts = _number(current), _number(sensor / f"in{number}_input")
            label = sensor / f"in{number}_label"
            if amperes is not None and volts is not None and label.exists():
                yield _name(label), amperes * volts * 1e-6


def _throttling(folder: Path) -> Iterator[tuple[str, float]]:
    """How far each cooling device slows its part down; fans, displays and others do not."""
    for device in sorted(folder.glob("cooling_device*")):
        now, most = _number(device / "cur_state"), _number(device / "max_state")
        name = _name(device / "type")
        if now is not None and most and any(word in name.lower() for word in _SLOWING):
            yield f"{name} {device.name.removeprefix('cooling_device')}", max(0.0, now / most)


class ThrottlingWatch:
    """Says once when something begins or ends to slow the machine down.

    Args:
        say: takes the message.
        sys_dir: where the kernel shows its figures.
    """

    def __init__(self, say: Callable[[str], None], sys_dir: Path = _SYS) -> None:
        self._say, self._thermal = say, sys_dir / "class/thermal"
        self._before: list[str] = []

    def look(self) -> None:
        """Compare with the last look. Temperatures are read only if there is something to say."""
        now = sorted(name for name, share in _throttling(self._thermal) if share > 0)
        before, self._before = self._before, now
        if now == before:
            return
        warmest = max(_temperatures(self._thermal).values(), default=None)
        at = "" if warmest is None else f"; the warmest part has {warmest:.0f} °C"
        if now:
            self._say(f"the machine is slowed down by {', '.join(now)}{at}")
        else:
            self._say(f"the machine is no longer slowed down{at}")
