"""A recording in MCAP: what the model saw, what it said, and when; Foxglove and Rerun open it.

| topic        | schema                   | content                                               |
|--------------|--------------------------|-------------------------------------------------------|
| ``/input``   | foxglove.CompressedImage | the frame at the model's size, PNG: a replay is exact |
| ``/labels``  | foxglove.CompressedImage | the label map, PNG of grey levels: the class numbers  |
| ``/overlay`` | foxglove.CompressedImage | what ``--save`` would show, JPEG                      |
| ``/result``  | JSON                     | the line that ``--jsonl`` writes                      |

Times are those of capture. The file is written in chunks of at most 64 KiB, so that a kill loses
less than a second.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from mcap.exceptions import McapError
from mcap.well_known import MessageEncoding
from mcap.writer import CompressionType, Writer
from mcap_protobuf.schema import register_schema

from runtime.errors import SinkError
from runtime.frames import Segmentation
from runtime.images import resize_image
from runtime.overlay import Overlay
from runtime.sinks.jsonl import ResultLines
from runtime.sources.replay import INPUT, LABELS

OVERLAY, RESULT = "/overlay", "/result"
RECORDING = "sfda_edge"  # name of the metadata
_CHUNK_BYTES = 64 << 10


class McapSink:
    """Writes a recording.

    Args:
        path: of the file.
        overlay: draws the pictures.
        input_hw: of the model.
        lines: makes the record of each result.
        facts: of bundle and backend, for a replay.

    Raises:
        SinkError: the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        overlay: Overlay,
        *,
        input_hw: tuple[int, int],
        lines: ResultLines,
        facts: dict[str, Any],
    ) -> None:
        self._path, self._overlay, self._lines = path, overlay, lines
        self._input_hw = input_hw
        # Taken once: a clock that is set while we record must not tear the times apart.
        self._day_ns = time.time_ns() - time.monotonic_ns()
        try:
            self._file = path.open("wb")
        except OSError as error:
            raise SinkError(f"cannot write {path}: {error.strerror}") from None
        # Pictures are compressed already.
        self._writer = Writer(self._file, _CHUNK_BYTES, CompressionType.NONE)
        self._writer.start(library="sfda-edge")
        image = register_schema(self._writer, CompressedImage)
        record = self._writer.register_schema(
            "sfda_edge.Result", "jsonschema", json.dumps({"type": "object"}).encode()
        )
        self._channels = {
            topic: self._writer.register_channel(topic, MessageEncoding.Protobuf, image)
            for topic in (INPUT, LABELS, OVERLAY)
        }
        self._channels[RESULT] = self._writer.register_channel(RESULT, MessageEncoding.JSON, record)
        self._writer.add_metadata(RECORDING, {name: str(value) for name, value in facts.items()})

    def write(self, result: Segmentation) -> None:
        """Add the messages of one result.

        Raises:
            SinkError: the disk is full.
        """
        # The monotonic clock of capture, on the clock of the day.
        at_ns = self._day_ns + result.frame.captured_ns
        try:
            if not result.repeated:
                image = resize_image(result.frame.image, self._input_hw)
                self._add(INPUT, at_ns, _image(at_ns, "png", _encoded(".png", image)))
                labels = _encoded(".png", result.label_map)
                self._add(LABELS, at_ns, _image(at_ns, "png", labels))
                picture = _encoded(".jpg", self._overlay.draw_result(result))
                self._add(OVERLAY, at_ns, _image(at_ns, "jpeg", picture))
            self._add(RESULT, at_ns, json.dumps(self._lines.record(result)).encode())
            self._file.flush()
        except OSError as error:
            raise SinkError(
                f"cannot write {self._path}: {error.strerror}; what was written before can be read"
            ) from None

    def _add(self, topic: str, at_ns: int, data: bytes) -> None:
        self._writer.add_message(self._channels[topic], at_ns, data, at_ns)

    def close(self) -> None:
        """Write the index.

        Raises:
            SinkError: there is no room for it.
        """
        if self._file.closed:
            return
        try:
            self._writer.finish()
            self._file.flush()
        except (OSError, McapError) as error:
            raise SinkError(
                f"cannot finish {self._path}: {error}; what was written before can be read"
            ) from None
        finally:
            with contextlib.suppress(OSError):
                self._file.close()


def _image(at_ns: int, kind: str, data: bytes) -> bytes:
    message = CompressedImage(frame_id="camera", format=kind, data=data)
    message.timestamp.FromNanoseconds(at_ns)
    return message.SerializeToString()


def _encoded(suffix: str, picture: np.ndarray) -> bytes:
    import cv2

    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    settings = [cv2.IMWRITE_PNG_COMPRESSION, 1] if suffix == ".png" else []
    return cv2.imencode(suffix, picture, settings)[1].tobytes()
