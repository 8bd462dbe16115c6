"""LiveView: the newest result, for any number of viewers; a sink that never waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from runtime.frames import Segmentation
from runtime.hardware import read_hardware
from runtime.images import resize_image
from runtime.overlay import Overlay
from runtime.page.metrics import StreamMetrics
from runtime.sources.base import Source
from runtime.sources.watchdog import State
from runtime.stats import Snapshot

# Pictures for viewers are at most so wide: more costs the device and the network.
_MOST_WIDTH = 960
_JPEG_QUALITY = 80
_READY_AGE_MS = 10_000
_FIGURES_S = 0.5


class LiveView:
    """Keeps the newest result and encodes it when somebody asks, once for all viewers.

    Args:
        name: of the stream.
        source: whose state is shown.
        overlay: draws pictures for programs that cannot blend them.
        backend: what runs the model, as ``Backend.record`` says.
        snapshot: the stream's figures.
        metrics: of all streams; counts the results of this one.

    Attributes:
        name, source: of the stream.
        label_space: names and colours.
        result: the newest; None before the first.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        *,
        overlay: Overlay,
        backend: dict[str, Any],
        snapshot: Callable[[], Snapshot],
        metrics: StreamMetrics,
    ) -> None:
        self.name, self.source, self.label_space = name, source, overlay.label_space
        self._overlay, self._backend = overlay, backend
        self._figures, self._metrics = snapshot, metrics
        self._lock = threading.Lock()
        self._waiting: set[Callable[[], None]] = set()
        self.result: Segmentation | None = None
        self._number = 0
        self._pictures: tuple[int, bytes, bytes] = (0, b"", b"")
        self._overlay_jpeg: tuple[int, bytes] = (0, b"")
        self._closed = False
        self._encoding, self._asked = threading.Lock(), threading.Lock()
        self._seen_figures: tuple[float, Snapshot] | None = None
        metrics.follow(self)

    def snapshot(self) -> Snapshot:
        """The stream's figures, half a second old at most: once for all viewers."""
        with self._asked:
            now_s = time.monotonic()
            if self._seen_figures is None or now_s - self._seen_figures[0] > _FIGURES_S:
                self._seen_figures = now_s, self._figures()
            return self._seen_figures[1]

    def write(self, result: Segmentation) -> None:
        """Take one result; what viewers have not seen of earlier ones is lost to them."""
        self._metrics.add(self.name, result)
        with self._lock:
            self.result = result
            self._number += 1
        self._wake()

    def close(self) -> None:
        """The stream has ended; viewers keep its last picture."""

    def let_viewers_go(self) -> None:
        """The page ends."""
        with self._lock:
            self._closed = True
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, set()
        for call in waiting:
            call()

    def facts(self) -> dict[str, Any]:
        """What does not change while a stream runs."""
        return {
            "source": self.source.name,
            "classes": self.label_space.names,
            "palette": self.label_space.palette,
            "backend": self._backend,
        }

    def status(self) -> dict[str, Any]:
        """The state and the figures now."""
        result = self.result
        return {
            "source": self.source.name,
            "backend": self._backend,
            "state": str(self.source.state),
            "reconnects": self.source.reconnects,
            "damaged": self.source.damaged,
            "age_ms": None if result is None else round(result.frame.age_ms, 1),
            **self.snapshot().record(),
            "hardware": read_hardware().record(),
        }

    @property
    def closed(self) -> bool:
        """Whether the page ends."""
        return self._closed

    @property
    def ready(self) -> bool:
        """Whether there are results, the source gives frames, and the model keeps up."""
        result = self.result
        if result is None or result.repeated or self.source.state is State.ENDED:
            return False
        return result.frame.age_ms < _READY_AGE_MS

    async def wait(self, seen: int, timeout_s: float) -> int:
        """Wait for a result after number ``seen``; the newest number, which may still be that.

        No thread waits: a process has few of them for its viewers, and they encode pictures.
        """
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()

        def call() -> None:
            with contextlib.suppress(RuntimeError):  # the page's loop has ended
                loop.call_soon_threadsafe(arrived.set)

        with self._lock:
            if self._number > seen or self._closed:
                return self._number
            self._waiting.add(call)
        try:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(arrived.wait(), timeout_s)
        finally:
            with self._lock:
                self._waiting.discard(call)
        return self._number

    def message(self) -> tuple[int, bytes]:
        """The newest result for the page: its number, and header, JPEG and label PNG in one.

        The header is JSON; before it stand the lengths of header and JPEG, 4 bytes each, little
        endian.
        """
        with self._encoding:
            with self._lock:
                number, result = self._number, self.result
            if result is None:
                return 0, b""
            if number != self._pictures[0]:
                self._pictures = (number, _jpeg(result.frame.image), _png(result.label_map))
            _, jpeg, png = self._pictures
            header = self._header(result)  # with the age now
            return number, struct.pack("<II", len(header), len(jpeg)) + header + jpeg + png

    def picture(self) -> bytes:
        """The newest overlay as JPEG; empty before the first result."""
        with self._encoding:
            with self._lock:
                number, result = self._number, self.result
            if result is None:
                return b""
            if number != self._overlay_jpeg[0]:
                self._overlay_jpeg = (number, _jpeg(self._overlay.draw_result(result)))
            return self._overlay_jpeg[1]

    def _header(self, result: Segmentation) -> bytes:
        shares = result.class_shares(self.label_space.num_classes)
        header = {
            "frame": result.frame.index,
            "age_ms": round(result.frame.age_ms, 1),
            "state": result.state,
            "repeated": result.repeated,
            "stage_ms": {stage: round(value, 2) for stage, value in result.timing.items()},
            "shares": [round(float(share), 4) for share in shares],
        }
        return json.dumps(header).encode()


def _png(label_map: np.ndarray) -> bytes:
    import cv2

    return cv2.imencode(".png", label_map, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def _jpeg(picture: np.ndarray) -> bytes:
    import cv2

    height, width = picture.shape[:2]
    if width > _MOST_WIDTH:
        picture = resize_image(picture, (round(height * _MOST_WIDTH / width), _MOST_WIDTH))
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
