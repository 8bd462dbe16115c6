"""Adapt a segmentation model to a new domain without its training data.

    import sfda_edge

    model = sfda_edge.load_model(my_network, class_names=names, size_hw=(256, 512))
    run = sfda_edge.adapt(model, "target/images")
    print(run.selected_step, run.report_path)

Importing the package imports no torch; the first use of a name does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sfda_edge.own_packages import hidden

__version__ = "0.1.0"
__all__ = [
    "Evaluation",
    "LoadedModel",
    "Run",
    "SfdaEdgeError",
    "SlidingWindows",
    "TrainedModel",
    "adapt",
    "evaluate",
    "load_model",
    "train",
]

if TYPE_CHECKING:
    from sfda_edge.adaptation.request import Run
    from sfda_edge.api import adapt, evaluate, load_model, train
    from sfda_edge.errors import SfdaEdgeError
    from sfda_edge.evaluation import Evaluation
    from sfda_edge.models.loaded_model import LoadedModel
    from sfda_edge.models.sliding_windows import SlidingWindows
    from sfda_edge.training.run import TrainedModel

_HOMES = {
    "Evaluation": "sfda_edge.evaluation",
    "LoadedModel": "sfda_edge.models.source_model",
    "Run": "sfda_edge.adaptation.request",
    "SfdaEdgeError": "sfda_edge.errors",
    "SlidingWindows": "sfda_edge.models.sliding_windows",
    "TrainedModel": "sfda_edge.training.run",
    **dict.fromkeys(("adapt", "evaluate", "load_model", "train"), "sfda_edge.api"),
}


if _hidden := hidden("runtime"):
    raise ImportError(_hidden)


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sfda_edge' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
