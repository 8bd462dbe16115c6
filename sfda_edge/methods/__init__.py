"""The adaptation methods: name → recipe type and class."""

from __future__ import annotations

from typing import Any

from sfda_edge.errors import RecipeError
from sfda_edge.methods.base import AdaptationMethod
from sfda_edge.methods.bn import BatchNormRecipe, BatchNormStatistics
from sfda_edge.methods.maxsquare import MaxSquare, MaxSquareRecipe
from sfda_edge.methods.multiview import MultiView, MultiViewRecipe
from sfda_edge.methods.selftrain import SelfTraining, SelfTrainingRecipe
from sfda_edge.methods.sfda.method import Sfda
from sfda_edge.methods.sfda.recipe import SfdaRecipe
from sfda_edge.methods.tent import Tent, TentRecipe
from sfda_edge.recipes.recipe import closest, parse_recipe, read_recipe, recipe_names

__all__ = ["DEFAULT_METHOD", "METHODS", "AdaptationMethod", "load_method_recipe"]

DEFAULT_METHOD = "multiview"
METHODS: dict[str, tuple[type[Any], type[Any]]] = {
    "multiview": (MultiViewRecipe, MultiView),
    "sfda": (SfdaRecipe, Sfda),
    "bn": (BatchNormRecipe, BatchNormStatistics),
    "tent": (TentRecipe, Tent),
    "maxsquare": (MaxSquareRecipe, MaxSquare),
    "selftrain": (SelfTrainingRecipe, SelfTraining),
}


def method_name(name: str) -> str:
    """The name of a method; ``default`` is an alias of the default method.

    Raises:
        RecipeError: no such method.
    """
    if name == "default":
        return DEFAULT_METHOD
    if name not in METHODS:
        is_recipe = name in recipe_names()
        hint = f"it is a recipe: --recipe {name}" if is_recipe else closest(name, list(METHODS))
        raise RecipeError(f"unknown method '{name}'; {hint}")
    return name


def load_method_recipe(
    recipe: str | None = None, method: str | None = None, overrides: tuple[str, ...] = ()
) -> tuple[str, Any]:
    """Read an adaptation recipe: its line ``method =`` names the method.

    Args:
        recipe: a recipe's name or a TOML file; None for the method's own.
        method: a method's name, which must be the recipe's; None for the recipe's or the default.
        overrides: ``KEY=VALUE`` settings.

    Returns:
        the method's name and its recipe.

    Raises:
        RecipeError: no such recipe or method, or settings that do not fit.
    """
    wanted = None if method is None else method_name(method)
    name = recipe or wanted or DEFAULT_METHOD
    title, settings = f"recipe '{name}'", read_recipe(name).settings
    found = settings.pop("method", None)
    if not isinstance(found, str):
        known = ", ".join(METHODS)
        raise RecipeError(f"{title} has no line method = NAME; known methods: {known}")
    found = method_name(found)
    if wanted not in (None, found):
        raise RecipeError(f"{title} is for method '{found}', not '{wanted}'")
    return found, parse_recipe(settings, METHODS[found][0], overrides, title)
