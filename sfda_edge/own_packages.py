"""Whether Python finds our top-level packages, and not files of the user's by their names."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def hidden(name: str) -> str | None:
    """What hides a package of ours, such as the user's ``export.py`` on ``PYTHONPATH``.

    Args:
        name: ``runtime`` or ``export``.

    Returns:
        A sentence that names the file; None where it is ours that is found.
    """
    found = importlib.util.find_spec(name)
    ours = Path(__file__).resolve().parent.with_name(name)
    if found is None or found.origin is None or Path(found.origin).resolve().parent == ours:
        return None
    return (
        f"{found.origin} hides sfda-edge's package '{name}': rename it, or take its folder off "
        "PYTHONPATH"
    )
