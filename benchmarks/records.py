"""Where benchmarks write their figures: checked before the work, written as JSON."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from runtime.files import whole_or_not_at_all


def picture_file(text: str) -> Path:
    """For argparse: a picture that can be written later.

    Raises:
        argparse.ArgumentTypeError: its name ends in another way, or as ``output_file``.
    """
    if not text.endswith((".jpg", ".png")):
        raise argparse.ArgumentTypeError(f"expected a .jpg or .png, got '{text}'")
    return output_file(text)


def output_file(text: str) -> Path:
    """For argparse: a file that can be written later.

    Raises:
        argparse.ArgumentTypeError: it is a folder, or its folder does not exist.
    """
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder; name a file")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"folder {path.parent} does not exist; make it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{path} cannot be written; name another file")
    return path


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record, so that a diff shows which figure changed: whole or not at all.

    Where nothing can be put in its place, as in a folder that cannot be written, or of a device, it
    is written as it is.

    Raises:
        OSError: it cannot be written.
    """
    path = path.resolve()
    text = json.dumps(record, indent=1) + "\n"
    if not os.access(path.parent, os.W_OK) or (path.exists() and not path.is_file()):
        path.write_text(text, encoding="utf-8")
        return
    with whole_or_not_at_all(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
