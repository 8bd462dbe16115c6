"""A running page with results of the test's own."""

from __future__ import annotations

import contextlib
import http.client
import time
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest

from runtime.frames import Frame, Segmentation
from runtime.overlay import Overlay
from runtime.sources.base import ImageSource
from runtime.sources.watchdog import State
from runtime.stats import StreamStats

BACKEND = {
    "backend": "onnxruntime",
    "library": "ONNX Runtime 1.0",
    "provider": "CPUExecutionProvider",
    "precision": "fp32",
    "golden_agreement": 0.9987,
}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture
def get():
    """``get(port, path, headers)``; of a page that never ends, the first bytes."""

    def fetch(port, path, **headers):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.closing(client):
            client.request("GET", path, headers=headers)
            response = client.getresponse()
            with contextlib.closing(response):
                endless = "multipart" in response.headers.get("content-type", "")
                body = response.read(100) if endless else response.read()
                return Answer(response.status, response.headers, body)

    return fetch


class Camera(ImageSource):
    """Its state is what the test says."""

    name, live, reconnects = "rtsp://…@camera/1", True, 3
    state_now = State.LIVE

    @property
    def state(self):
        return self.state_now

    def _next_image(self):
        return None


class Stream:
    """A view, its server, and a way to add results."""

    def __init__(self, view, server, stats):
        self.view, self.server, self.stats, self._count = view, server, stats, 0

    @property
    def port(self):
        return int(self.server.url.rstrip("/").rpartition(":")[2])

    def add(self, label=1, **changes):
        image = np.full((48, 64, 3), 100, np.uint8)
        label_map = np.full((24, 32), label, np.uint8)
        label_map[:6] = 0
        frame = Frame(self._count, image, time.monotonic_ns())
        timing = {"read": 40.0, "queue": 1.0, "resize": 0.5, "infer": 8.0}
        self._count += 1
        self.stats.add({**timing, "output": 0.1, "age": 10.0})
        self.view.write(
            Segmentation(**{"frame": frame, "label_map": label_map, "timing": timing, **changes})
        )


@contextlib.contextmanager
def served(three_classes, names):
    """A page of streams with these names."""
    from runtime.page.metrics import StreamMetrics
    from runtime.page.server import PageServer
    from runtime.page.view import LiveView

    metrics, pairs = StreamMetrics(BACKEND), []
    for name in names:
        stats = StreamStats()
        stats.start()
        view = LiveView(
            name,
            Camera(),
            overlay=Overlay(three_classes),
            backend=BACKEND,
            snapshot=partial(stats.snapshot, 10, 2),
            metrics=metrics,
        )
        pairs.append((view, stats))
    views = [view for view, _ in pairs]
    with PageServer(views, metrics, ("127.0.0.1", 0)) as server:
        streams = [Stream(view, server, stats) for view, stats in pairs]
        for one in streams:
            one.metrics = metrics
        yield streams


@pytest.fixture
def stream(three_classes):
    pytest.importorskip("starlette", reason="extra serve")
    with served(three_classes, ["front"]) as (only,):
        yield only


@pytest.fixture
def two_streams(three_classes):
    pytest.importorskip("starlette", reason="extra serve")
    with served(three_classes, ["front", "rear left"]) as both:
        yield both
