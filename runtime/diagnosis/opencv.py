"""OpenCV: which of its wheels is installed, and what it was built with."""

from __future__ import annotations

import importlib
import os
import re

from runtime.diagnosis.finding import Finding
from runtime.diagnosis.packages import installed

# They all unpack into the folder cv2 and overwrite each other (opencv/opencv-python#467).
WHEELS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


def look() -> list[Finding]:
    """The flavour, and whether cameras, videos, GStreamer and windows work."""
    wheels = installed(WHEELS)
    findings = []
    if len(wheels) > 1:
        names = " ".join(wheels)
        findings.append(
            Finding(
                "opencv",
                "problem",
                f"several flavours, which overwrite each other: {names}",
                f"pip uninstall -y {names}, then install one of them again.",
            )
        )
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as error:
        findings.append(
            Finding(
                "opencv",
                "problem",
                f"does not start: {error}",
                "pip install opencv-python, or opencv-python-headless where libGL is missing.",
            )
        )
        return findings
    flavour = next(iter(wheels), "not from pip: JetPack's or your own build")
    findings.append(Finding("opencv", "ok", f"{cv2.__version__} ({flavour})"))
    return findings + judge(cv2.getBuildInformation(), _has_display())


def _has_display() -> bool:
    return any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def judge(build_information: str, has_display: bool) -> list[Finding]:
    """What the text of ``cv2.getBuildInformation`` says of video and windows."""
    findings = []
    if _is_built(build_information, "FFMPEG"):
        findings.append(Finding("opencv", "ok", "FFMPEG: videos and network streams"))
    else:
        findings.append(
            Finding(
                "opencv",
                "note",
                "built without FFMPEG: no rtsp:// and few kinds of video",
                "pip install opencv-python has it.",
            )
        )
    if _is_built(build_information, "GStreamer"):
        findings.append(Finding("opencv", "ok", "GStreamer: pipelines and CSI cameras"))
    else:
        findings.append(
            Finding(
                "opencv",
                "note",
                "built without GStreamer: no CSI camera, no hardware decoding",
                "pip's wheels never have it (opencv/opencv-python#530); use JetPack's OpenCV.",
            )
        )
    window = re.search(r"^\s*GUI:\s*(\S+)", build_information, re.MULTILINE)
    if not window or window[1].upper() == "NONE":
        advice = "pip install opencv-python instead of the headless wheel."
        findings.append(Finding("opencv", "note", "built without windows: no --show", advice))
    elif not has_display:
        advice = "Leave out --show, or set DISPLAY."
        findings.append(Finding("opencv", "note", "no display: no --show", advice))
    return findings


def _is_built(build_information: str, name: str) -> bool:
    return bool(re.search(rf"^\s*{name}:\s*YES", build_information, re.MULTILINE))
