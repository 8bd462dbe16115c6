"""The builder's measurements in a file that knows whether it is whole.

TensorRT trusts the bytes that it is given, so none are that a full disk or a copy has cut.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

_DIGEST_BYTES = hashlib.sha256().digest_size


def with_digest(measurements: bytes) -> bytes:
    """A file's content: SHA-256, then the measurements; empty for none."""
    return hashlib.sha256(measurements).digest() + measurements if measurements else b""


def read_timing_cache(path: Path) -> bytes:
    """The measurements in a file; empty where there is none, or not a whole one."""
    try:
        content = path.read_bytes()
    except OSError:
        return b""
    digest, measurements = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return measurements if hashlib.sha256(measurements).digest() == digest else b""
