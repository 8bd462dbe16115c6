"""Installed Python distributions, by name, without importing them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence

from runtime.diagnosis.finding import Finding


def installed(names: Sequence[str]) -> dict[str, str]:
    """Those of the distributions that are installed, with their versions."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def one_flavour(part: str, wheels: Sequence[str]) -> tuple[str, list[Finding]]:
    """Which of several wheels is installed that unpack into one folder; a problem if more are."""
    found = installed(wheels)
    names = " ".join(found)
    if len(found) > 1:
        said = f"several flavours, which overwrite each other: {names}"
        advice = f"pip uninstall -y {names}, then install one of them again."
        return names, [Finding(part, "problem", said, advice)]
    return names or "not from pip: JetPack's or your own build", []
