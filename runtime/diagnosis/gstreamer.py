"""GStreamer's programs, which ``gst:`` and ``csi0`` start."""

from __future__ import annotations

from runtime.diagnosis.finding import Finding
from runtime.sources.gstreamer import CSI_ELEMENTS, LAUNCH, has_launch, knows


def look() -> list[Finding]:
    """Whether pipelines run, and which cameras on the board are known."""
    if not has_launch():
        return [
            Finding(
                "gstreamer",
                "note",
                f"no {LAUNCH}: no gst: and no csi0",
                "apt install gstreamer1.0-tools gstreamer1.0-plugins-{base,good}",
            )
        ]
    known = [element for element in CSI_ELEMENTS if knows(element)]
    cameras = f"csi0 by {known[0]}" if known else "no cameras on the board (csi0)"
    return [Finding("gstreamer", "ok", f"{LAUNCH}; {cameras}")]
