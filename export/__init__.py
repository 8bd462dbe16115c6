"""Turn a model into a bundle, and check that it predicts the same.

    import export

    bundle = export.export(run, precision="fp16", out_dir="bundle")
    print(bundle.result.parity.label_agreement)

Importing the package imports neither torch nor onnx; the first use of a name does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["Bundle", "ExportError", "ParityError", "export"]

if TYPE_CHECKING:
    from export.api import Bundle, export
    from export.errors import ExportError, ParityError

_HOMES = {
    "Bundle": "export.api",
    "ExportError": "export.errors",
    "ParityError": "export.errors",
    "export": "export.api",
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'export' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
