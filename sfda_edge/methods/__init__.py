"""The adaptation methods: name → recipe type and class."""

from __future__ import annotations

from typing import Any

from sfda_edge.methods.base import AdaptationMethod
from sfda_edge.methods.bn import BatchNormRecipe, BatchNormStatistics

__all__ = ["METHODS", "AdaptationMethod"]

METHODS: dict[str, tuple[type[Any], type[Any]]] = {
    "bn": (BatchNormRecipe, BatchNormStatistics),
}
