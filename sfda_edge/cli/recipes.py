"""sfda-edge recipes: list the recipes, or print one to copy."""

from __future__ import annotations

import argparse
from typing import Any

from runtime.output import print_result
from sfda_edge.cli import options

SELECTION = "selection"


def add(commands: Any) -> None:
    """Add the command."""
    parser = options.add_command(commands, "recipes", "List the recipes, or print one.", run)
    parser.add_argument("name", nargs="?", metavar="NAME", help="print this one")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from sfda_edge.recipes.recipe import describe_recipes, read_recipe_text
    from sfda_edge.selection.config import SelectionConfig

    if args.name == SELECTION:
        print_result(SelectionConfig().text(), end="")
    elif args.name:
        print_result(read_recipe_text(args.name), end="")
    else:
        print_result(describe_recipes(), end="")
        print_result(f"{SELECTION:<46}Constants of label-free selection, each with its reason.")
