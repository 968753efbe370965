"""What a shell completes of the words of a command, beyond commands, options and choices: names of recipes."""

from __future__ import annotations

from collections.abc import Callable

from pics_cli.core.recipes.shipped import shipped_recipes


def complete_recipe(*kinds: str) -> Callable[[str], list[tuple[str, str]]]:
    """For typer: names and summaries of the shipped recipes of some kinds that begin with a word; no kinds: all."""

    def complete(incomplete: str) -> list[tuple[str, str]]:
        recipes = shipped_recipes(*kinds)
        return [(recipe.name, recipe.summary) for recipe in recipes if recipe.name.startswith(incomplete)]

    return complete
