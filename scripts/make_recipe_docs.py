"""Write docs/recipes.md, every key of every kind of recipe, from the dataclasses that recipes are read into.

python scripts/make_recipe_docs.py [FILE]
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from itertools import takewhile
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from pics_cli.core.recipes import validation
from pics_cli.core.recipes.base import find_recipe, recipe_kind
from pics_cli.core.recipes.dataset import DatasetRecipe
from pics_cli.core.recipes.evaluation import EvaluationRecipe
from pics_cli.core.recipes.shipped import recipe_names
from pics_cli.core.recipes.training import TrainingRecipe

OUT = Path(__file__).parents[1] / "docs/recipes.md"
HEAD = """# Recipes

Written by `python scripts/make_recipe_docs.py` from the code.

A recipe is a YAML file, named by its path or, of those that come with the package, by its name. Any value can be
overridden on the command line, by its dotted key: `--set pairs.objects=3`. All faults of a recipe are reported at once.
A key without a default has to be given, unless it is a mapping all of whose keys have one.
"""
KINDS = {"dataset": DatasetRecipe, "training": TrainingRecipe, "evaluation": EvaluationRecipe}
PLAIN = {bool: "true or false", int: "whole number", float: "number", str: "text"}
# What strings stand for; Text itself is any that is not empty.
STRINGS = {
    "path": (validation.UserPath,), "name": (validation.Name,),
    "pattern": (validation.ImagePattern, validation.FolderPattern, validation.LabelFolder),
    "folder": (validation.Folder, validation.RelativePath),
}  # fmt: skip


def recipe_docs() -> str:
    """The reference of all kinds of recipes, as markdown."""
    parts = [HEAD, "## Recipes that come with the package\n", shipped_table()]
    for kind, tree in KINDS.items():
        parts += [f"## Recipes of kind `{kind}`\n", *sections(tree, "", set())]
    return "\n".join(parts)


def shipped_table() -> str:
    """Name, kind and opening comment of each shipped recipe."""
    lines = ["| recipe | kind | what it is |", "| --- | --- | --- |"]
    for name in recipe_names():
        path = find_recipe(name)
        comment = takewhile(lambda line: line.startswith("# ") and line[2:3] != " ", path.read_text().splitlines())
        what = " ".join(line.removeprefix("# ") for line in comment).replace("|", "\\|")
        lines.append(f"| `{name}` | {recipe_kind(path)} | {what} |")
    return "\n".join(lines) + "\n"


def sections(tree: type, key: str, seen: set[type]) -> Iterator[str]:
    """A table of the keys of a mapping, and then, with headings, those of the mappings in it.

    Args:
        tree: dataclass that the mapping is read into.
        key: of the mapping, dotted; empty: the whole file.
        seen: dataclasses that have a section already; changed.
    """
    seen.add(tree)
    hints, texts = get_type_hints(tree, include_extras=True), field_texts(tree)
    yield f"{inspect.cleandoc(tree.__doc__ or '')}\n"
    lines = ["| key | value | default | what it is |", "| --- | --- | --- | --- |"]
    nested: list[tuple[str, type]] = []
    for field in fields(tree):
        name = f"{key}.{field.name}" if key else field.name
        lines.append(
            f"| `{field.name}` | {value_text(hints[field.name])} | {default_text(field)} | {texts[field.name]} |"
        )
        nested += mappings(hints[field.name], name)
    yield "\n".join(lines) + "\n"
    for name, inner in nested:
        if inner in seen:
            continue
        tag = get_type_hints(inner).get("format")
        yield f"### `{name}`" + (f", format `{get_args(tag)[0]}`" if tag else "") + "\n"
        yield from sections(inner, name, seen)


def field_texts(tree: type) -> dict[str, str]:
    """The text below each field of a dataclass and its bases, on one line."""
    texts: dict[str, str] = {}
    for base in reversed(tree.__mro__):
        if not is_dataclass(base):
            continue
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(node, ast.ClassDef)
        for line, below in zip(node.body, node.body[1:], strict=False):
            if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(line.target, ast.Name):
                texts[line.target.id] = " ".join(str(ast.literal_eval(below.value)).split()).replace("|", "\\|")
    return texts


def mappings(hint: Any, name: str) -> list[tuple[str, type]]:
    """Dataclasses that a field's value is read into, by key: one, one for each format, or that of any key of it."""
    if is_dataclass(hint):
        return [(name, hint)] if isinstance(hint, type) else []
    arguments = get_args(hint)
    if get_origin(hint) is dict:
        return mappings(arguments[1], f"{name}.NAME")
    if get_origin(hint) is Annotated:
        return mappings(arguments[0], name)
    if get_origin(hint) in (Union, UnionType):
        return [found for argument in arguments for found in mappings(argument, name)]
    return []


def value_text(hint: Any) -> str:
    """What a value may be, in words."""
    for word, kinds in STRINGS.items():
        if hint in kinds:
            return word
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = [limit.expected for limit in arguments[1:] if isinstance(limit, validation.Requirement)]
        return ", ".join([value_text(arguments[0]), *(limit.replace("|", "\\|") for limit in limits)])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        kinds_of_value = dict.fromkeys(value_text(kind) for kind in arguments if kind is not NoneType)
        return ", or ".join(kinds_of_value) + " or none" * (NoneType in arguments)
    if origin is tuple:
        return f"list: {value_text(arguments[0])}" if Ellipsis in arguments else f"list of {len(arguments)} numbers"
    if origin is dict:
        return f"mapping of {value_text(arguments[0])} to {value_text(arguments[1])}"
    return "mapping" if is_dataclass(hint) else PLAIN[hint]


def default_text(field: Field[Any]) -> str:
    """A field's default as YAML has it; empty: it has to be given, or is a mapping of defaults."""
    if field.default_factory is not MISSING:
        value = field.default_factory()
        if not is_dataclass(value) or isinstance(value, type) or value == type(value)():
            return ""
        return f"`{as_yaml(asdict(value))}`"
    return "" if field.default is MISSING else "none" if field.default is None else f"`{as_yaml(field.default)}`"


def as_yaml(value: Any) -> str:
    """A value on one line, as a recipe would have it."""
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=1000, sort_keys=False).removesuffix("\n...\n").strip()


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else OUT).write_text(recipe_docs())
