"""Recipes: YAML files validated into frozen dataclasses, every error reported at once.

A recipe is found by the name of a file shipped with the package (`lvis`) or by a path (`mine.yaml`). Any value can be
overridden by its dotted key (`pairs.objects=3`).
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from pics_cli.core.recipes.shipped import recipe_folder, recipe_names, shipped_recipes
from pics_cli.core.recipes.validation import error_line, short_json
from pics_cli.core.recipes.yaml_values import YamlError, parse_yaml
from pics_cli.core.runtime.storage import is_remote, location
from pics_cli.errors import PicsError, read_error

Recipe = TypeVar("Recipe")
_COMMANDS = {"dataset": "pics build-shards", "training": "pics train --recipe", "evaluation": "pics eval --recipe"}


class Override(NamedTuple):
    """A value given on the command line; `origin` is what the user typed, for messages."""

    key: str
    value: Any
    origin: str


def find_recipe(name: str, what: str = "recipe") -> Path:
    """Find a recipe by shipped name, by path, or by the address of a file in a store.

    Args:
        name: as the user gives it.
        what: `recipe` or `dataset`, for the message, which then knows datasets alone.

    Raises:
        PicsError: there is none; names the nearest shipped recipes, or all where none is near.
    """
    if "/" in name or Path(name).suffix in (".yaml", ".yml"):
        path = location(name)
        if not path.is_file():
            problem = "is a folder, expected a recipe file" if path.is_dir() else "no such recipe file"
            near = get_close_matches(path.name, _neighbours(path), n=1)
            guess = f"did you mean {path.with_name(near[0])}? " if near else ""
            raise PicsError(
                f"{name}: {problem}", f"{guess}pics recipes lists the shipped ones, which are named without .yaml"
            )
        return path
    if name in recipe_names():
        return recipe_folder() / f"{name}.yaml"
    known = [recipe.name for recipe in shipped_recipes(*(["dataset"] if what == "dataset" else []))]
    near = get_close_matches(name.lower(), known, n=2)
    guess = f"did you mean {' or '.join(near)}? pics recipes lists all" if near else f"known: {', '.join(known)}"
    raise PicsError(f"unknown {what} {name!r}", f"{guess}; one of your own is named by the path of its .yaml file")


def _neighbours(path: Path) -> list[str]:
    """Names of the recipe files in a path's folder; none in a store, where a list may be long."""
    if is_remote(path):
        return []
    return sorted(file.name for file in path.parent.glob("*.y*ml"))


def parse_override(text: str) -> Override:
    """Read `key.path=value`, the value as YAML.

    Raises:
        PicsError: no `=`, an empty key or a value that is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise PicsError(f"--set {text!r}: expected key.path=value", "for example --set pairs.min_area_ratio=0.05")
    try:
        data, duplicates = parse_yaml(value)
    except YamlError as error:
        raise PicsError(f"--set {key}: {short_json(value)}: {error}", "quote it, or write lists as [a, b]") from None
    if duplicates:
        raise PicsError(f"--set {key}: {duplicates[0][0]}: given twice, expected once")
    return Override(key, data, f"--set {key}")


def parse_overrides(settings: Sequence[str] | None, flags: Mapping[str, tuple[str, Any]]) -> list[Override]:
    """Overrides of a command: those of its --set options, then those of the flags that are given.

    Args:
        settings: texts of --set.
        flags: flag and value by the key that the flag overrides; a value of None: not given.

    Raises:
        PicsError: as `parse_override`.
    """
    given = [Override(key, value, flag) for key, (flag, value) in flags.items() if value is not None]
    return [*map(parse_override, settings or ()), *given]


def load_recipe(
    path: Path, tree: type[Recipe], overrides: Sequence[Override] = (), data: dict[str, Any] | None = None
) -> Recipe:
    """Read and validate a recipe.

    Args:
        path: of the YAML file.
        tree: the dataclass that it is read into.
        overrides: values that replace the file's.
        data: contents to take instead of a file's; `path` then names them in messages.

    Raises:
        PicsError: with one line for every error.
    """
    keys = [override.key for override in overrides]
    if repeated := next((key for key in keys if keys.count(key) > 1), None):
        flags = ", ".join(override.origin for override in overrides if override.key == repeated)
        raise PicsError(f"{repeated} is given twice on the command line ({flags})", "give it once")
    data, errors = _read_yaml(path) if data is None else (data, [])
    kind, expected = data.get("kind"), get_args(get_type_hints(tree)["kind"])[0]
    if kind != expected and isinstance(kind, str) and kind in _COMMANDS:
        raise PicsError(
            f"{path}: a recipe of kind {kind}, expected one of kind {expected}", f"{_COMMANDS[kind]} takes it"
        )
    data = copy.deepcopy(data)
    for override in overrides:
        _apply(data, override)
    try:
        recipe = TypeAdapter(tree).validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        origins = {override.key: override.origin for override in overrides}
        errors += [error_line(tree, path, detail, origins) for detail in error.errors()]
    if errors:
        file = f"{path.name} or " if path.suffix in (".yaml", ".yml") else ""  # `pics eval --shards` reads none
        raise PicsError("\n".join(errors), f"mend {file}the values given on the command line")
    return recipe


def read_recipe(path: Path) -> dict[str, Any]:
    """A recipe's contents as plain data, not validated.

    Raises:
        PicsError: it cannot be read, or is no mapping.
    """
    return _read_yaml(path)[0]


def recipe_kind(path: Path) -> object:
    """What a recipe says that it is: `dataset`, `training`, …; not validated."""
    return read_recipe(path).get("kind")


def plain_recipe(recipe: Any) -> dict[str, Any]:
    """A recipe (a dataclass) as plain data, as JSON holds it."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return plain


def digest(plain: Mapping[str, Any]) -> str:
    """sha256 (hex) of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _read_yaml(path: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        data, duplicates = parse_yaml(path.read_bytes())
    except OSError as error:
        raise read_error(path, error) from None
    except YamlError as error:
        where = f"{path}: line {error.line}" if error.line else str(path)
        raise PicsError(f"{where}: not YAML: {error}", "check indentation and quotes") from None
    if not isinstance(data, dict):
        found = "is empty" if data is None else f"got {short_json(data)}"
        raise PicsError(f"{path}: {found}, expected a mapping that starts with kind: …", "pics recipes shows some")
    return data, [f"{path}: line {line}: {key}: given twice, expected once" for key, line in duplicates]


def _apply(data: dict[str, Any], override: Override) -> None:
    *parents, last = override.key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise PicsError(f"{override.origin}: {parent} holds {short_json(data)}, expected a mapping")
    data[last] = override.value
