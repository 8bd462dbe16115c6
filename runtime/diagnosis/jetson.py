"""Jetson: JetPack by its L4T release, and the power mode."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from runtime.diagnosis.finding import Finding

RELEASE_FILE = Path("/etc/nv_tegra_release")
# L4T release → JetPack and its TensorRT.
JETPACK = {
    "35": ("5", "8.5"),
    "36.3": ("6.0", "8.6"),
    "36.4": ("6.1 or 6.2", "10.3"),
    "36.5": ("6.2.2", "10.3"),
    "38": ("7.0 or 7.1", "10.13"),
    "39": ("7.2", "10.16"),
}
_OLDEST = (36, 4)  # TensorRT 10
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def look() -> list[Finding]:
    """JetPack and power mode; nothing on other machines but the CPU's governor."""
    findings = []
    if RELEASE_FILE.is_file():
        findings.append(judge_release(RELEASE_FILE.read_text(errors="replace")))
        findings.append(_power_mode())
    if _GOVERNOR.is_file():
        findings.append(judge_governor(_GOVERNOR.read_text().strip()))
    return findings


def judge_release(text: str) -> Finding:
    """The first line of /etc/nv_tegra_release: ``# R36 (release), REVISION: 4.3, …``."""
    match = re.search(r"R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", text)
    if not match:
        return Finding("jetson", "note", "its L4T release cannot be read", f"See {RELEASE_FILE}.")
    major, minor = int(match[1]), int(match[2].split(".")[0])
    known = JETPACK.get(f"{major}.{minor}") or JETPACK.get(str(major))
    if known is None:
        said, advice = f"L4T {major}.{match[2]}, of no JetPack that we know", "dpkg -l libnvinfer*"
        return Finding("jetson", "note", said, f"Look for TensorRT 10 or later: {advice}")
    jetpack, tensorrt = known
    said = f"L4T {major}.{match[2]}: JetPack {jetpack}, TensorRT {tensorrt}"
    if (major, minor) < _OLDEST:
        advice = "Engines need TensorRT 10: update to JetPack 6.1 or later."
        return Finding("jetson", "problem", said, advice)
    return Finding("jetson", "ok", said)


def _power_mode() -> Finding:
    if shutil.which("nvpmodel") is None:
        return Finding("power", "note", "nvpmodel is not installed", "Figures vary with the mode.")
    done = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, check=False)
    return judge_power_mode(done.stdout)


def judge_power_mode(text: str) -> Finding:
    """What ``nvpmodel -q`` prints: ``NV Power Mode: MAXN``."""
    match = re.search(r"NV Power Mode:\s*(\S+)", text)
    if not match:
        return Finding("power", "note", "the power mode cannot be read", "sudo nvpmodel -q")
    if match[1].upper().startswith("MAXN"):
        return Finding("power", "ok", f"power mode {match[1]}")
    advice = (
        "grep POWER_MODEL /etc/nvpmodel.conf lists the modes, whose numbers differ from module to "
        "module; sudo nvpmodel -m N sets one. Say it beside every figure."
    )
    return Finding("power", "note", f"power mode {match[1]}", advice)


def judge_governor(name: str) -> Finding:
    """The CPU's frequency governor."""
    if name == "performance":
        return Finding("power", "ok", f"CPU governor {name}")
    advice = "Clocks fall between frames; before measuring: sudo jetson_clocks, or cpupower."
    return Finding("power", "note", f"CPU governor {name}", advice)
