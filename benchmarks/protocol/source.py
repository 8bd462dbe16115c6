"""How the source model of a protocol is trained where no weights are given."""

from __future__ import annotations

from typing import Any

from benchmarks.protocol.file import Protocol
from sfda_edge.recipes.recipe import parse_recipe
from sfda_edge.training.supervised import TrainRecipe

# Of 8 images, with AdamW: the papers do not say how theirs were trained, and begin with ImageNet.
SOURCE_STEPS = 40_000


def source_settings(protocol: Protocol) -> dict[str, Any]:
    """The training recipe's settings that differ from its defaults."""
    model = protocol.model
    return {
        "model": model.name,
        "label_space": model.label_space,
        "input_hw": list(protocol.source_input_hw or model.input_hw or ()),
        "steps": SOURCE_STEPS,
    }


def source_recipe(protocol: Protocol, overrides: tuple[str, ...]) -> TrainRecipe:
    """The whole training recipe.

    Raises:
        RecipeError: an override is none of its settings.
    """
    return parse_recipe(source_settings(protocol), TrainRecipe, overrides, "source training")
