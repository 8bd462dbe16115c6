"""Which containers and protocols may be opened: FFmpeg decides by content what a file is.

A playlist may name other files and addresses, so both are limited to lists, for files and for the
network apart.
"""

from __future__ import annotations

from dataclasses import dataclass

_CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,m4v,mjpeg,mpjpeg,h264,hevc"


@dataclass(frozen=True)
class FfmpegLimits:
    """What FFmpeg may do.

    Attributes:
        options: FFmpeg's own, by name.
        open_s: until it has to be open.
        read_s: until the next packet has to come.
    """

    options: tuple[tuple[str, str], ...]
    open_s: float | None = None
    read_s: float | None = None

    def for_opencv(self) -> str:
        """As OpenCV's environment variable has them."""
        return "|".join(f"{name};{value}" for name, value in self.options)


FILES = FfmpegLimits((("protocol_whitelist", "file"), ("format_whitelist", _CONTAINERS)))
NETWORK = FfmpegLimits(
    (
        ("rtsp_transport", "tcp"),
        ("protocol_whitelist", "http,https,httpproxy,tcp,tls,udp,rtp,rtsp"),
        ("format_whitelist", f"{_CONTAINERS},rtsp,rtp,sdp"),
    ),
    open_s=5.0,
    read_s=5.0,
)
# What a child process writes into a pipe.
GSTREAMER = FfmpegLimits(
    (
        ("protocol_whitelist", "pipe"),
        ("format_whitelist", "matroska,webm"),
        # The header says all; a camera of 5 frames a second took 5 s to be probed.
        ("analyzeduration", "1"),
        ("fpsprobesize", "0"),
    ),
    open_s=8.0,
)
