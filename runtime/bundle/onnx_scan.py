"""Whether an ONNX graph holds all of its weights, read without the package onnx.

A tensor may name a file beside the graph, or anywhere. Numbers are those of ONNX's protobuf schema
(onnx.proto: ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto, SparseTensorProto).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_MOST_KEY = 0xFFFFFFFF
# Message → field → message that is found there.
_INSIDE = {
    "model": {7: "graph", 25: "function"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}


def reads_other_files(path: Path) -> bool:
    """Whether a tensor of the graph lies in another file.

    Raises:
        ValueError: it is no protobuf message.
        OSError: the file cannot be read.
    """
    try:
        return _reads(memoryview(path.read_bytes()), "model")
    except RecursionError:
        raise ValueError("its graphs are nested too deeply") from None


def _reads(message: memoryview, kind: str) -> bool:
    for field, value in _fields(message):
        if kind == "tensor":
            if field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value):
                return True
        elif (
            field in _INSIDE[kind]
            and isinstance(value, memoryview)
            and _reads(value, _INSIDE[kind][field])
        ):
            return True
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Numbers of fields with their values; of fixed-size ones without."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        if key > _MOST_KEY:  # of which others read the low 32 bits
            raise ValueError(f"a field of number {key >> 3}")
        wire = key & 7
        value: int | memoryview = 0
        if wire == 0:
            value, at = _varint(message, at)
        elif wire == 2:
            length, at = _varint(message, at)
            value, at = message[at : at + length], at + length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at > end:
            raise ValueError("it ends within a field")
        yield key >> 3, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it ends within a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than 10 bytes")
