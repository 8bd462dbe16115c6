"""Recipes: strict TOML files with every setting of a run, changed one by one with ``--set``."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np

from runtime.toml_file import parse_value
from sfda_edge.errors import DataError, RecipeError
from sfda_edge.toml_file import read_toml

T = TypeVar("T")
# Share of the target in the BatchNorm statistics, in [0, 1]; "auto" for the one that is best by the
# label-free score (selection/view_search.py).
TargetShare = float | Literal["auto"]
_FOLDER = Path(__file__).parent
# The former name of the default method, and of its recipe.
_ALIASES = {"default": "multiview"}


def require(holds: bool, rule: str, found: Any = None) -> None:
    """For recipes' ``__post_init__``: reject a setting that breaks a rule.

    Raises:
        ValueError: it does not hold; says the rule and what was found.
    """
    if not holds:
        raise ValueError(rule if found is None else f"{rule}, got {found}")


def require_target_share(share: TargetShare) -> None:
    """The rule of every share of the target in BatchNorm statistics."""
    require(share == "auto" or 0 <= share <= 1, "target_share must be auto or in [0, 1]", share)


def require_training(recipe: Any) -> None:
    """The rules that every recipe of a training method shares."""
    require(min(recipe.steps, recipe.batch_size) >= 1, "steps and batch_size must be at least 1")
    require(recipe.learning_rate > 0, "learning_rate must be above 0", recipe.learning_rate)


def require_augmentation(recipe: Any) -> None:
    """The rules of recipes that augment images and warm up."""
    require(
        recipe.weight_decay >= 0 and recipe.warmup_steps >= 0,
        "weight_decay and warmup_steps must not be below 0",
    )
    require(0 < recipe.min_scale <= 1, "min_scale must be in (0, 1]", recipe.min_scale)
    require(
        0 <= recipe.colour_jitter <= 1 and 0 <= recipe.blur_share <= 1,
        "colour_jitter and blur_share must be in [0, 1]",
    )


@dataclass(frozen=True, kw_only=True)
class RecipeFile:
    """A recipe as it was read.

    Attributes:
        settings: of the method.
        model: the ``[model]`` table: what source model it is for. The ``[published]`` table, a
            paper's figures, is for readers of the file.
    """

    settings: dict[str, Any]
    model: dict[str, Any] = field(default_factory=dict)


def recipe_names() -> list[str]:
    """The recipes that ship with the package."""
    return sorted(
        path.relative_to(_FOLDER).with_suffix("").as_posix() for path in _FOLDER.rglob("*.toml")
    )


def read_recipe(name_or_path: str) -> RecipeFile:
    """Read a recipe by name or from a TOML file; the settings are not checked.

    Raises:
        RecipeError: there is no such recipe, or it is not a TOML file of settings.
    """
    path = recipe_path(name_or_path)
    try:
        content = read_toml(path)
    except DataError as error:
        raise RecipeError(str(error)) from None
    about = [name for name in ("model", "published") if isinstance(content.get(name), dict)]
    tables = {name: content.pop(name) for name in about}
    return RecipeFile(settings=content, model=tables.get("model", {}))


def load_recipe(name_or_path: str, kind: type[T], overrides: tuple[str, ...] = ()) -> T:
    """Read a recipe by name or from a TOML file, then apply ``KEY=VALUE`` overrides.

    Values are written as in TOML; a bare word is text; ``fp16.class_iou`` is a key of a table.

    Raises:
        RecipeError: an unknown recipe or setting, or a value of the wrong type.
    """
    settings = read_recipe(name_or_path).settings
    return parse_recipe(settings, kind, overrides, f"recipe '{name_or_path}'")


def recipe_path(name_or_path: str) -> Path:
    """Where a recipe is.

    Raises:
        RecipeError: there is none.
    """
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        if not path.exists():
            raise RecipeError(f"{path} does not exist; sfda-edge recipes lists the packaged ones")
        return path
    name = _ALIASES.get(name_or_path, name_or_path)
    if name not in recipe_names():
        hint = closest(name_or_path, recipe_names())
        raise RecipeError(f"unknown recipe '{name_or_path}'; {hint} (or a .toml file)")
    return _FOLDER / f"{name}.toml"


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
    settings: dict[str, Any], kind: type[T], overrides: Sequence[str] = (), title: str = "recipe"
) -> T:
    """Check settings against the frozen dataclass ``kind`` and build it.

    Args:
        settings: of a file.
        kind: has all of them as fields.
        overrides: ``KEY=VALUE``.
        title: what errors call the file.

    Raises:
        RecipeError: an unknown setting, or a value of the wrong type or range, or not finite.
    """
    changed = [parsed_override(text) for text in overrides]
    _require_known(settings, kind, title)
    merged = settings
    for key, value in changed:
        _require_known(_nested(key, value), kind, "--set")
        merged = _merged(merged, _nested(key, value))
    where = f"{title} with --set {' '.join(overrides)}" if overrides else title
    try:
        recipe = msgspec.convert(merged, kind, strict=True)
    except (msgspec.ValidationError, ValueError, TypeError, OverflowError) as error:
        raise RecipeError(f"{where}: {error}") from None
    if broken := _not_finite(merged):
        raise RecipeError(f"{where}: {broken} must be a finite number")
    return recipe


def _nested(key: str, value: Any) -> dict[str, Any]:
    """``fp16.class_iou`` and a value as nested tables."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _merged(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Settings with changes, table by table."""
    merged = dict(settings)
    for key, value in changes.items():
        before = merged.get(key)
        both = isinstance(before, dict) and isinstance(value, dict)
        merged[key] = _merged(before, value) if both else value  # type: ignore[arg-type]
    return merged


def _require_known(settings: dict[str, Any], kind: type[Any], title: str) -> None:
    """Reject settings that the dataclass does not have.

    Raises:
        RecipeError: names one and what may have been meant.
    """
    known = {one.name: one for one in fields(kind)}
    for key, value in settings.items():
        if key not in known:
            raise RecipeError(f"{title}: unknown setting '{key}'; {closest(key, list(known))}")
        inner = known[key].default
        if isinstance(value, dict) and is_dataclass(inner):
            _require_known(value, type(inner), f"{title}, [{key}]")


def _not_finite(settings: Any, name: str = "") -> str:
    """The first setting that is NaN or infinite; empty if there is none."""
    if isinstance(settings, float) and not math.isfinite(settings):
        return name
    if isinstance(settings, dict):
        parts = [_not_finite(value, str(key)) for key, value in settings.items()]
    elif isinstance(settings, list | tuple):
        parts = [_not_finite(value, name) for value in settings]
    else:
        return ""
    return next((part for part in parts if part), "")


def closest(found: str, known: list[str]) -> str:
    """What may have been meant."""
    close = difflib.get_close_matches(found, known, 1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"


def parsed_override(text: str) -> tuple[str, Any]:
    """The name and the value of ``KEY=VALUE``.

    Raises:
        RecipeError: it has another form.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set takes KEY=VALUE, got '{text}'")
    return key, parse_value(value)


def recipe_toml(recipe: Any, **heading: str) -> str:
    """A recipe as TOML text: the heading's settings, then all others, tables last."""
    settings = heading | msgspec.to_builtins(recipe)
    tables = {key: value for key, value in settings.items() if isinstance(value, dict)}
    lines = [f"{k} = {toml_value(v)}" for k, v in settings.items() if k not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{k} = {toml_value(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """A value, also one of NumPy's, in TOML's notation."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, str | bool | list | tuple):
        # JSON has the same notation for these types.
        return msgspec.json.encode(value, enc_hook=lambda inner: inner.tolist()).decode()
    return repr(value)
