"""Read TOML files; what is wrong with one is wrong with the user's data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtime import toml_file
from runtime.errors import ConfigError
from sfda_edge.errors import DataError


def read_toml(path: Path) -> dict[str, Any]:
    """The file's content.

    Raises:
        DataError: the file is missing, is no regular file, or is not TOML.
    """
    try:
        return toml_file.read_toml(path)
    except ConfigError as error:
        raise DataError(str(error)) from None
