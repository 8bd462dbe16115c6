"""OpenCV: which of its wheels is installed, and what it was built with."""

from __future__ import annotations

import importlib
import os
import re

from runtime.diagnosis.finding import Finding
from runtime.diagnosis.packages import one_flavour

# They all unpack into the folder cv2 and overwrite each other (opencv/opencv-python#467).
WHEELS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


def look() -> list[Finding]:
    """The flavour, and whether cameras, videos and windows work."""
    flavour, findings = one_flavour("opencv", WHEELS)
    try:
        cv2 = importlib.import_module("cv2")
        version = cv2.__version__  # which the empty folder that an uninstalled wheel leaves has not
    except Exception as error:  # one of another ABI raises whatever it likes
        findings.append(
            Finding(
                "opencv",
                "problem",
                f"does not start: {error}",
                "pip install opencv-python, or opencv-python-headless where libGL is missing.",
            )
        )
        return findings
    findings.append(Finding("opencv", "ok", f"{version} ({flavour})"))
    return findings + judge(cv2.getBuildInformation(), _has_display())


def _has_display() -> bool:
    return any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def judge(build_information: str, has_display: bool) -> list[Finding]:
    """What the text of ``cv2.getBuildInformation`` says of video and windows."""
    findings = [
        _video(build_information, "FFMPEG", "videos and network streams", "pip's wheels have it."),
    ]
    window = re.search(r"^\s*GUI:\s*(\S+)", build_information, re.MULTILINE)
    if not window or window[1].upper() == "NONE":
        advice = "pip install opencv-python instead of the headless wheel."
        findings.append(Finding("opencv", "note", "built without windows: no --show", advice))
    elif not has_display:
        advice = "Leave out --show, or set DISPLAY."
        findings.append(Finding("opencv", "note", "no display: no --show", advice))
    return findings


def _video(build_information: str, name: str, purpose: str, advice: str) -> Finding:
    if re.search(rf"^\s*{name}:\s*YES", build_information, re.MULTILINE):
        return Finding("opencv", "ok", f"{name}: {purpose}")
    return Finding("opencv", "note", f"built without {name}: no {purpose}", advice)
