"""``replay:FILE.mcap``: the frames of a recording, at the times that they had."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from runtime.errors import SourceError, missing_package
from runtime.files import require_regular
from runtime.sources.base import ImageSource
from runtime.sources.capture import load_opencv

logger = logging.getLogger(__name__)
INPUT, LABELS = "/input", "/labels"
CUT_OFF = "cut off"  # no topic: the end of a file without its end
_MOST_RECORD_BYTES = 256 << 20


class ReplaySource(ImageSource):
    """Every recorded frame, in order; a recording that was cut off ends where it was cut.

    Raises:
        SourceError: it is no recording of ours, or a library is missing.

    Attributes:
        keeps_labels: whether somebody takes the labels, as a comparison does.
        labels: of the frames that were read and are not compared yet: by index, (h, w) uint8.
        cut_off: whether the file has no end; known when all frames were read.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.name, self.live = f"replay:{path}", False
        self.keeps_labels = False
        self.labels: dict[int, np.ndarray] = {}
        self._cv2 = load_opencv()
        try:
            require_regular(path)
            self._file = path.open("rb")
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}") from None
        self.cut_off = False
        self._pairs = self._read_pairs(path)
        self._began: tuple[int, int] | None = None
        self._interrupted = threading.Event()

    def _next_image(self) -> np.ndarray | None:
        pair = next(self._pairs, None)
        if pair is None:
            return None
        at_ns, image, labels = pair
        self._wait(at_ns)
        if self.keeps_labels:
            self.labels[self._count] = self._decoded(labels, self._cv2.IMREAD_GRAYSCALE)
        self._time_s = (at_ns - self._began[0]) * 1e-9 if self._began else 0.0
        return self._cv2.cvtColor(
            self._decoded(image, self._cv2.IMREAD_COLOR), self._cv2.COLOR_BGR2RGB
        )

    def _read_pairs(self, path: Path) -> Iterator[tuple[int, bytes, bytes]]:
        """Time, image and labels of each frame, as they lie in the file."""
        image: tuple[int, bytes] | None = None
        num_pairs = 0
        for topic, at_ns, data in _messages(self._file, path):
            if topic == INPUT:
                image = (at_ns, data)
            elif topic == LABELS and image is not None and image[0] == at_ns:
                yield at_ns, image[1], data
                image, num_pairs = None, num_pairs + 1
            elif topic == CUT_OFF:
                self.cut_off = True
                logger.warning("%s was cut off; what is whole is replayed", path)
        if not num_pairs:
            raise SourceError(f"{path} holds no frame that --record has written")

    def _wait(self, at_ns: int) -> None:
        """Until as much time has passed since the first frame as in the recording."""
        if self._began is None:
            self._began = (at_ns, time.monotonic_ns())
        due_ns = at_ns - self._began[0] - (time.monotonic_ns() - self._began[1])
        if due_ns > 0:
            self._interrupted.wait(due_ns * 1e-9)

    def _decoded(self, data: bytes, flags: int) -> np.ndarray:
        picture = self._cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
        if picture is None:
            raise SourceError(f"{self.name}: frame {self._count} is damaged")
        return picture

    def interrupt(self) -> None:
        """Wait for no more frames."""
        self._interrupted.set()

    def _release(self) -> None:
        self._file.close()


def _messages(file: IO[bytes], path: Path) -> Iterator[tuple[str, int, bytes]]:
    """All messages that are whole."""
    try:
        from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
        from google.protobuf.message import DecodeError
        from mcap.records import Channel, Footer, Message
        from mcap.stream_reader import StreamReader
    except ModuleNotFoundError as error:
        raise SourceError(missing_package("replay", error, "record")) from None
    topics: dict[int, str] = {}
    records: Iterator[Any] = StreamReader(file, record_size_limit=_MOST_RECORD_BYTES).records
    while True:
        try:
            record = next(records)
        except Exception as error:  # of a damaged file; they have no common base
            if not topics:
                raise SourceError(f"{path} is no recording of ours: {error}") from None
            yield CUT_OFF, 0, b""
            return
        if isinstance(record, Footer):
            return
        if isinstance(record, Channel):
            topics[record.id] = record.topic
        elif isinstance(record, Message) and topics.get(record.channel_id) in (INPUT, LABELS):
            try:
                data = CompressedImage.FromString(record.data).data
            except DecodeError:
                raise SourceError(f"{path}: a message is damaged") from None
            yield topics[record.channel_id], record.log_time, data
