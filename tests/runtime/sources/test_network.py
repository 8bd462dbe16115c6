"""A real RTSP server on this machine, with a real H.264 stream."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import SourceError
from runtime.sources.grammar import open_source

av = pytest.importorskip("av", reason="extra dev")
pytest.importorskip("aio_rtsp_toolkit", reason="extra dev")
START_S = 30.0


def write_h264(path: Path) -> None:
    """Ten seconds at 25 fps, frame i grey level i."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.codec_context.gop_size = 10
        for index in range(250):
            picture = np.full((120, 160, 3), index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_it_listens(port: int) -> None:
    start_s = time.monotonic()
    while time.monotonic() - start_s < START_S:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError("the RTSP server did not start")


@pytest.fixture
def camera(tmp_path) -> Iterator[tuple[str, subprocess.Popen]]:
    write_h264(tmp_path / "drive.mp4")
    port = free_port()
    command = [str(Path(sys.executable).with_name("rtsp-server")), "--dir", str(tmp_path)]
    with subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            wait_until_it_listens(port)
            yield f"rtsp://user:secret@127.0.0.1:{port}/drive.mp4", server
        finally:
            server.kill()


def test_a_stream_is_read_and_its_loss_is_an_error_without_the_password(camera):
    url, server = camera
    with open_source(url) as source:
        assert source.live
        assert "secret" not in source.name
        frames = [source.read() for _ in range(20)]
        assert frames[0].image.shape == (120, 160, 3)
        greys = [frame.image.mean() for frame in frames]
        assert greys == sorted(greys)
        assert greys[-1] > greys[0]
        server.kill()
        with pytest.raises(SourceError, match="stopped after") as caught:
            list(iter(source.read, None))
        assert "secret" not in str(caught.value)
