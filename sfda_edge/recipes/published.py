"""What a recipe of a published result says beside its settings: the source model, the figures."""

from __future__ import annotations

from dataclasses import dataclass

from sfda_edge.recipes.recipe import parse_recipe, read_recipe


@dataclass(frozen=True)
class RecipeModel:
    """The source model of a recipe; None where it says nothing.

    Attributes:
        name: as ``--model``.
        label_space: as ``--label-space``.
        input_hw: as ``--size``.
    """

    name: str | None = None
    label_space: str | None = None
    input_hw: tuple[int, int] | None = None


def recipe_model(name_or_path: str) -> RecipeModel:
    """The ``[model]`` table of a recipe.

    Raises:
        RecipeError: no such recipe, or another setting in the table.
    """
    found = read_recipe(name_or_path).model
    return parse_recipe(found, RecipeModel, title=f"recipe '{name_or_path}', [model]")
