"""Segment images and live streams with an exported bundle, on the device.

    import runtime

    for result in runtime.open_stream("camera0", bundle="bundle"):
        print(result.label_map.shape, result.timing["infer"])

Importing the package needs NumPy only; the first use of a name imports what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from runtime.no_telemetry import refuse_telemetry

__all__ = [
    "Frame",
    "LoadedBundle",
    "Segmentation",
    "SourceSettings",
    "Stream",
    "StreamError",
    "load_bundle",
    "open_stream",
]

if TYPE_CHECKING:
    from runtime.api import LoadedBundle, Stream, load_bundle, open_stream
    from runtime.errors import StreamError
    from runtime.frames import Frame, Segmentation
    from runtime.sources.settings import SourceSettings

refuse_telemetry()

_HOMES = {
    "Frame": "runtime.frames",
    "Segmentation": "runtime.frames",
    "StreamError": "runtime.errors",
    "SourceSettings": "runtime.sources.settings",
    **dict.fromkeys(("LoadedBundle", "Stream", "load_bundle", "open_stream"), "runtime.api"),
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'runtime' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
