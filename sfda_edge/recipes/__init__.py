"""Recipes: the settings of a method, as strict TOML."""
