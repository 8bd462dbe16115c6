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
_FOLDER = Path(__file__).parent


def require(holds: bool, rule: str, found: Any = None) -> None:
    """For recipes' ``__post_init__``: say the rule that a setting breaks.

    Raises:
        ValueError: it does not hold.
    """
    if not holds:
        raise ValueError(rule if found is None else f"{rule}, got {found}")


def recipe_names() -> list[str]:
    """The recipes that ship with the package."""
    return sorted(
        path.relative_to(_FOLDER).with_suffix("").as_posix() for path in _FOLDER.rglob("*.toml")
    )


def load_recipe(name_or_path: str, kind: type[T], overrides: tuple[str, ...] = ()) -> T:
    """Read a recipe by name or from a TOML file, then apply ``KEY=VALUE`` overrides.

    Values are written as in TOML; a bare word is text.

    Raises:
        RecipeError: an unknown recipe or setting, or a value of the wrong type.
    """
    settings = read_toml(recipe_path(name_or_path))
    return parse_recipe(settings, kind, overrides, f"recipe '{name_or_path}'")


def recipe_path(name_or_path: str) -> Path:
    """Where a recipe is.

    Raises:
        RecipeError: there is none.
    """
    path = (
        Path(name_or_path) if name_or_path.endswith(".toml") else _FOLDER / f"{name_or_path}.toml"
    )
    if path.is_file():
        return path
    if name_or_path.endswith(".toml"):
        raise RecipeError(f"{path} is not there; sfda-edge recipes lists those that ship with us")
    hint = closest(name_or_path, recipe_names())
    raise RecipeError(f"unknown recipe '{name_or_path}'; {hint} (or a .toml file)")


def read_recipe_text(name: str) -> str:
    """A recipe's file as it is, comments included."""
    return recipe_path(name).read_text(encoding="utf-8")


def describe_recipes() -> str:
    """All recipes with the first line of each, which is its comment."""
    lines = []
    for name in recipe_names():
        first = read_recipe_text(name).partition("\n")[0]
        lines.append(f"{name:<46}{first.lstrip('# ')}\n")
    return "".join(lines)


def parse_recipe(
    settings: dict[str, Any], kind: type[T], overrides: tuple[str, ...] = (), title: str = "recipe"
) -> T:
    """Check settings against the frozen dataclass ``kind`` and build it.

    Args:
        settings: of a file.
        kind: has all of them as fields.
        overrides: ``KEY=VALUE``.
        title: what errors call the file.

    Raises:
        RecipeError: an unknown setting, or a value of the wrong type or range.
    """
    changed = dict(_override(text) for text in overrides)
    merged = {**settings, **changed}
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for key in merged:
        if key not in known:
            where = "--set" if key in changed else title
            raise RecipeError(f"{where}: unknown setting '{key}'; {closest(key, known)}")
    try:
        return msgspec.convert(merged, kind, strict=True)
    except (msgspec.ValidationError, ValueError) as error:
        where = f"{title} with --set {' '.join(overrides)}" if overrides else title
        raise RecipeError(f"{where}: {error}") from None


def closest(found: str, known: list[str]) -> str:
    """What may have been meant."""
    close = difflib.get_close_matches(found, known, 1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"


def _override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set takes KEY=VALUE, got '{text}'")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def recipe_toml(recipe: Any, **heading: str) -> str:
    """A recipe as TOML text, all settings written out below those of the heading."""
    settings = heading | msgspec.to_builtins(recipe)
    return "".join(f"{key} = {_toml(value)}\n" for key, value in settings.items())


def _toml(value: Any) -> str:
    if isinstance(value, str | bool | list | tuple):
        return msgspec.json.encode(value).decode()  # the same notation for these types
    return repr(value)
