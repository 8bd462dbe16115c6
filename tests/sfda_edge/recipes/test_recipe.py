import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.thresholds import Thresholds
from runtime.toml_file import tomllib
from sfda_edge.errors import RecipeError
from sfda_edge.methods import METHODS, load_method_recipe
from sfda_edge.methods.bn import BatchNormRecipe
from sfda_edge.recipes.recipe import (
    load_recipe,
    parse_recipe,
    recipe_names,
    recipe_path,
    recipe_toml,
)
from sfda_edge.toml_file import read_toml
from sfda_edge.training.supervised import TrainRecipe


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_survives_being_written(name, tmp_path):
    path = tmp_path / "written.toml"
    kinds = {"export": Thresholds, "train-demo": TrainRecipe, "train-light": TrainRecipe}
    if name in kinds:
        recipe = load_recipe(name, kinds[name])
        path.write_text(recipe_toml(recipe))
        assert load_recipe(str(path), kinds[name]) == recipe
    else:
        method, recipe = load_method_recipe(name)
        path.write_text(recipe_toml(recipe, method=method))
        assert load_method_recipe(str(path)) == (method, recipe)


def test_every_method_has_a_recipe():
    methods = {read_toml(recipe_path(name)).get("method") for name in recipe_names()}
    assert methods == {*METHODS, None}


def test_settings_are_overridden_one_by_one():
    found = load_method_recipe("bn", None, ("target_share=0.5", "num_images=8"))
    assert found == ("bn", BatchNormRecipe(0.5, 8, 8, 0))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("target_shar=0.5", "unknown setting 'target_shar'; did you mean 'target_share'"),
        ("colour=3", "unknown setting 'colour'; known: target_share"),
        ("num_images=many", "Expected `int`, got `str`"),
        ("num_images=1.5", "Expected `int`, got `float`"),
        ("target_share=2.0", r"target_share must be auto or in \[0, 1\], got 2.0"),
        ("target_share", "KEY=VALUE"),
        ("num_images=50", "num_images must be a multiple of batch_size, got 50 and 8"),
    ],
)
def test_wrong_settings_are_errors_that_say_what_to_do(override, message):
    with pytest.raises(RecipeError, match=message):
        load_method_recipe("bn", None, (override,))


def test_an_unknown_recipe_lists_what_there_is():
    with pytest.raises(RecipeError, match="known: bn, export"):
        load_method_recipe("nothing")


@given(st.floats(0, 1), st.integers(1, 100), st.integers(0, 2**31))
def test_recipes_survive_being_written(share, batch_size, seed):
    recipe = BatchNormRecipe(share, batch_size * 2, batch_size, seed)
    assert parse_recipe(tomllib.loads(recipe_toml(recipe)), BatchNormRecipe) == recipe


@given(st.text(max_size=20))
def test_any_override_is_taken_or_refused(text):
    with contextlib.suppress(RecipeError):
        load_method_recipe("bn", None, (text,))
