"""Recipes: strict TOML files with every setting of a run, changed one by one with ``--set``."""

from __future__ import annotations

import difflib
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sfda_edge.errors import RecipeError
from sfda_edge.toml_file import read_toml, tomllib

T = TypeVar("T")
_FOLDER = Path(__file__).parent / "recipes"


def recipe_names() -> list[str]:
    """The recipes that ship with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_recipe(name_or_path: str, kind: type[T], overrides: tuple[str, ...] = ()) -> T:
    """Read a recipe by name or from a TOML file, then apply ``KEY=VALUE`` overrides.

    Values are written as in TOML; a bare word is text.

    Raises:
        RecipeError: an unknown recipe or setting, or a value of the wrong type.
    """
    path = (
        Path(name_or_path) if name_or_path.endswith(".toml") else _FOLDER / f"{name_or_path}.toml"
    )
    if not path.is_file():
        known = ", ".join(recipe_names())
        raise RecipeError(f"unknown recipe '{name_or_path}'; known: {known}, or a .toml file")
    return parse_recipe(read_toml(path), kind, overrides)


def parse_recipe(settings: dict[str, Any], kind: type[T], overrides: tuple[str, ...] = ()) -> T:
    """Check settings against the frozen dataclass ``kind`` and build it.

    Raises:
        RecipeError: an unknown setting, or a value of the wrong type or range.
    """
    merged = {**settings, **dict(_override(text) for text in overrides)}
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for key in merged:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
            raise RecipeError(f"unknown setting '{key}'; {hint}")
    try:
        return msgspec.convert(merged, kind, strict=True)
    except (msgspec.ValidationError, ValueError) as error:
        raise RecipeError(f"recipe: {error}") from None


def _override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set takes KEY=VALUE, got '{text}'")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def recipe_toml(recipe: Any) -> str:
    """A recipe as TOML text, all settings written out."""
    lines = (f"{key} = {_toml(value)}" for key, value in msgspec.to_builtins(recipe).items())
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, str | bool | list | tuple):
        return msgspec.json.encode(value).decode()  # the same notation for these types
    return repr(value)
