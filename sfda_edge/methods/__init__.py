"""The adaptation methods: name → recipe type and class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sfda_edge.errors import RecipeError
from sfda_edge.methods.base import AdaptationMethod
from sfda_edge.methods.bn import BatchNormRecipe, BatchNormStatistics
from sfda_edge.methods.maxsquare import MaxSquare, MaxSquareRecipe
from sfda_edge.methods.multiview import MultiView, MultiViewRecipe
from sfda_edge.methods.selftrain import SelfTraining, SelfTrainingRecipe
from sfda_edge.methods.sfda.method import Sfda, SfdaRecipe
from sfda_edge.methods.tent import Tent, TentRecipe
from sfda_edge.recipes.recipe import closest, parse_recipe, recipe_names, recipe_path
from sfda_edge.toml_file import read_toml

__all__ = ["METHODS", "AdaptationMethod", "load_method_recipe"]

# Parts of a recipe that are not the method's settings: see ``recipe_model``.
TABLES = ("model", "published")
METHODS: dict[str, tuple[type[Any], type[Any]]] = {
    "default": (MultiViewRecipe, MultiView),
    "sfda": (SfdaRecipe, Sfda),
    "bn": (BatchNormRecipe, BatchNormStatistics),
    "tent": (TentRecipe, Tent),
    "maxsquare": (MaxSquareRecipe, MaxSquare),
    "selftrain": (SelfTrainingRecipe, SelfTraining),
}


def load_method_recipe(
    name_or_path: str, method: str | None = None, overrides: tuple[str, ...] = ()
) -> tuple[str, Any]:
    """Read an adaptation recipe: its ``method`` line says whose settings the others are.

    Args:
        name_or_path: a recipe of ours, which every method's name is, or a TOML file.
        method: what the recipe must be of, when the user named both.
        overrides: ``KEY=VALUE`` settings.

    Returns:
        the method's name and its recipe.

    Raises:
        RecipeError: no such recipe or method, or settings that do not fit.
    """
    if method is not None and method not in METHODS:
        hint = (
            f"it is a recipe: --recipe {method}"
            if method in recipe_names()
            else closest(method, list(METHODS))
        )
        raise RecipeError(f"unknown method '{method}'; {hint}")
    settings = read_toml(recipe_path(name_or_path))
    for table in TABLES:
        settings.pop(table, None)
    name = settings.pop("method", None)
    if name not in METHODS:
        known = ", ".join(METHODS)
        raise RecipeError(
            f"recipe '{name_or_path}' is of method '{name}'; an adaptation recipe says method = "
            f"one of {known}"
            if name
            else f"recipe '{name_or_path}' has no line method = ; known methods: {known}"
        )
    if method not in (None, name):
        raise RecipeError(f"recipe '{name_or_path}' is of method '{name}', not '{method}'")
    title = f"recipe '{name_or_path}'"
    return name, parse_recipe(settings, METHODS[name][0], overrides, title)


@dataclass(frozen=True)
class RecipeModel:
    """What a published recipe says of the source model; None where it says nothing.

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
    said = read_toml(recipe_path(name_or_path)).get("model", {})
    return parse_recipe(said, RecipeModel, title=f"recipe '{name_or_path}', [model]")
