"""`pics recipes`: the recipes of the package, and every value of one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pics_cli import console
from pics_cli.commands.completions import complete_recipe
from pics_cli.errors import PicsError

if TYPE_CHECKING:
    from pathlib import Path


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", autocompletion=complete_recipe(), help="A recipe, or the path of a .yaml."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override any value of the recipe.")
    ] = None,
) -> None:
    """List the recipes of the package, or show every value of one, by the key that --set takes, and where it is from.

    Datasets are built with pics build-shards NAME, trainings run with pics train --recipe NAME, and evaluations with
    pics eval --recipe NAME. A recipe of your own is a file like theirs, named by its path.
    """
    if name is None:
        if settings:
            raise PicsError("--set goes with the name of a recipe", "such as pics recipes lvis --set pairs.objects=3")
        _list()
    else:
        _show(name, settings or [])


def _list() -> None:
    from pics_cli.commands.results import RecipeEntry, Recipes
    from pics_cli.core.recipes.shipped import shipped_recipes

    shipped = shipped_recipes()
    console.result(Recipes(recipes=[RecipeEntry(name=r.name, kind=r.kind, summary=r.summary) for r in shipped]))
    rows = [(recipe.name, recipe.kind, recipe.summary) for recipe in shipped]
    console.table("recipes of the package", rows, ("name", "kind", ""), only=True)


def _show(name: str, settings: list[str]) -> None:
    from pics_cli.commands.results import ResolvedRecipe
    from pics_cli.core.recipes.base import find_recipe, parse_overrides, plain_recipe, read_recipe

    path, overrides = find_recipe(name), parse_overrides(settings, {})
    kind, recipe = _load(path, overrides)
    plain, given = plain_recipe(recipe), dict(_values(read_recipe(path)))
    changed = {override.key for override in overrides}
    rows, defaults = [], []
    for key, value in _values(plain):
        origin = "--set" if _is_of(key, changed) else "" if _is_of(key, given) else "default"
        if origin == "default":
            defaults.append(key)
        rows.append((key, json.dumps(value, ensure_ascii=False), origin))
    console.result(ResolvedRecipe(name=name, kind=kind, path=path, recipe=plain, defaults=defaults))
    console.table(f"{path}: {kind}", rows, ("key", "value", ""), only=True)


def _load(path: Path, overrides: list[Any]) -> tuple[str, Any]:
    """The kind of a recipe, and the recipe."""
    from pics_cli.core.recipes.base import load_recipe, recipe_kind
    from pics_cli.core.recipes.dataset import DatasetRecipe
    from pics_cli.core.recipes.evaluation import EvaluationRecipe
    from pics_cli.core.recipes.training import TrainingRecipe

    trees = {"dataset": DatasetRecipe, "training": TrainingRecipe, "evaluation": EvaluationRecipe}
    kind = recipe_kind(path)
    if kind not in trees:
        raise PicsError(f"{path}: kind: got {kind}, expected {', '.join(trees)}", "a recipe begins with its kind")
    return str(kind), load_recipe(path, trees[str(kind)], overrides)


def _values(plain: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Keys as --set takes them, and their values."""
    for key, value in plain.items():
        if isinstance(value, Mapping) and value:
            yield from _values(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _is_of(key: str, keys: Any) -> bool:
    """Whether a key, or one that it lies in, is among some."""
    parts = key.split(".")
    return any(".".join(parts[:end]) in keys for end in range(1, len(parts) + 1))
