"""What a resumed run needs, in one file that shows whether it is damaged."""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from runtime.bundle.manifest import file_sha256
from runtime.files import read_bytes
from sfda_edge.errors import RunError
from sfda_edge.runs.files import write_atomically

_MARK = b"sfda-edge sha256 "  # before the hash of all that comes before it, at the end of the file
_TRAILER_BYTES = len(_MARK) + 32


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state for ``read_state``.

    Raises:
        RunError: the folder cannot be written, or the disk is full.
    """

    def write(part: Path) -> None:
        try:
            torch.save(state, part)
        except RuntimeError as error:  # torch's error of a full disk
            free_mb = shutil.disk_usage(part.parent).free / 1e6
            reason = str(error).partition("\n")[0]
            raise OSError(f"is the disk full? {free_mb:.1f} MB are left ({reason})") from None
        digest = bytes.fromhex(file_sha256(part))
        with part.open("ab") as file:
            file.write(_MARK + digest)

    write_atomically(path, write)


def read_state(path: Path) -> dict[str, Any]:
    """Read a state, tensors on the CPU; no code is run.

    Raises:
        RunError: there is none, it is damaged, or it holds something else.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        raise RunError(f"nothing to resume: {path} does not exist") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from None
    body, mark, digest = content[:-_TRAILER_BYTES], content[-_TRAILER_BYTES:-32], content[-32:]
    if mark != _MARK or hashlib.sha256(body).digest() != digest:
        raise RunError(
            f"{path} is damaged, or of an older version: its hash does not match. Start again with "
            "another --out"
        )
    with restoring(path):
        state = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"it holds {type(state).__name__}")
    return state


@contextlib.contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Turn what another network's state raises while it is restored into an error of the run.

    Raises:
        RunError: the state does not fit.
    """
    try:
        yield
    except (
        RuntimeError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
        UnpicklingError,
    ) as error:
        raise RunError(
            f"{path} is not a checkpoint of this run, or of an older version: {error}"
        ) from None
