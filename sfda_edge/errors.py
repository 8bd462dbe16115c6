"""What can go wrong in adaptation, and who has to act.

SfdaEdgeError            printed without a traceback
├── RecipeError          a setting that does not exist or cannot be
├── DataError            images, labels or class maps that do not fit
├── CheckpointError      weights that do not fit the network, or cannot be read
├── RunError             a run directory that is not what the command needs
└── ExportError          in ``export``: a model that cannot be exported, or answers otherwise
CollapseError            no error of the command: the run ends, and returns its best model
"""

from __future__ import annotations

import traceback
from collections.abc import Container
from pathlib import Path


class SfdaEdgeError(Exception):
    """Base of all errors that are printed without a traceback.

    Attributes:
        exit_code: 2 when the user has to change something, 1 when the work itself failed.
    """

    exit_code = 2


class RecipeError(SfdaEdgeError):
    """A setting is unknown or impossible."""


class DataError(SfdaEdgeError):
    """Images, labels or class maps do not fit."""


class CheckpointError(SfdaEdgeError):
    """Weights do not fit the network, or cannot be read."""


class RunError(SfdaEdgeError):
    """A run directory lacks what the command needs, or cannot be written."""


class CollapseError(Exception):
    """A step that only makes things worse, which ends a run; the message says how it shows."""


def missing_weights(path: Path) -> CheckpointError:
    """The error for a model that is not there."""
    return CheckpointError(f"{path} does not exist; name a run directory or a weights file")


def line_of(error: BaseException, files: Container[str] | None = None) -> str:
    """Where an error arose, in a line for people that starts a new one; empty when unknown.

    Args:
        error: with its traceback.
        files: look for the last line in one of these; None for the very last.
    """
    frames = traceback.extract_tb(error.__traceback__)
    found = [frame for frame in frames if files is None or frame.filename in files]
    return f"\n  at {found[-1].filename}:{found[-1].lineno}: {found[-1].line}" if found else ""
