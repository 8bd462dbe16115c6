"""Live streams by PyAV: MJPEG over HTTP, as cheap cameras and our own page send it."""

from __future__ import annotations

import http.server
import threading
import time

import cv2
import numpy as np
import pytest

from runtime.errors import SourceError
from runtime.packaged import CLIP
from runtime.sources.grammar import open_source

pytest.importorskip("av", reason="extra video")
FPS = 10


@pytest.fixture
def camera():
    """The address of a camera that sends ten pictures a second."""
    _, jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 100, np.uint8))
    head = f"--f\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=f")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(head + jpeg.tobytes() + b"\r\n")
                    time.sleep(1 / FPS)
            except OSError:
                return

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/video"
    server.shutdown()
    server.server_close()


def test_a_video_of_an_unknown_codec_is_an_error(tmp_path):
    path = tmp_path / "unknown.mp4"
    path.write_bytes(CLIP.read_bytes().replace(b"mp4v", b"zzzz").replace(b"esds", b"zzzz"))
    with pytest.raises(SourceError, match="a codec that FFmpeg does not know"):
        open_source(str(path))


def test_pictures_without_times_are_as_old_as_their_arrival(camera):
    """FFmpeg makes up 25 a second: by those each of ten a second is 60 ms older than the last."""
    with open_source(camera) as source:
        ages = []
        for _ in range(4 * FPS):
            frame = source.read()
            ages.append(frame.age_ms)
            assert frame.time_s is None
    assert np.median(ages[-FPS:]) < 500
