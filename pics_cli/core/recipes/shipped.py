"""The recipes that ship with the package: their names, kinds and what each is for, read without loading a library."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_KIND = re.compile(r"^kind:\s*(\w+)", re.MULTILINE)
# The comment that a file begins with, up to the commands that run it, and its first sentence.
_COMMENT = re.compile(r"(?:#(?!   ).*\n)+")
_SENTENCE = re.compile(r".*?\.(?= |$)")


class ShippedRecipe(NamedTuple):
    """A recipe of the package.

    Attributes:
        name: by which commands find it.
        kind: `dataset`, `training` or `evaluation`.
        summary: one line.
        path: of its file.
    """

    name: str
    kind: str
    summary: str
    path: Path


def recipe_folder() -> Path:
    """Folder of the recipes that ship with the package (beside it in a source tree)."""
    package = Path(__file__).resolve().parents[2]
    shipped = package / "recipes"
    return shipped if shipped.is_dir() else package.parent / "recipes"


def recipe_names() -> list[str]:
    """Names of the shipped recipes, sorted."""
    return sorted(path.stem for path in recipe_folder().glob("*.yaml"))


def shipped_recipes(*kinds: str) -> list[ShippedRecipe]:
    """The shipped recipes of some kinds, by name; without kinds all."""
    recipes = (_read(path) for path in sorted(recipe_folder().glob("*.yaml")))
    return [recipe for recipe in recipes if not kinds or recipe.kind in kinds]


def _read(path: Path) -> ShippedRecipe:
    text = path.read_text(encoding="utf-8")
    kind, comment = _KIND.search(text), _COMMENT.match(text)
    words = " ".join(line.lstrip("# ") for line in comment[0].splitlines()) if comment else ""
    sentence = _SENTENCE.match(words)
    return ShippedRecipe(path.stem, kind[1] if kind else "", (sentence[0] if sentence else words).rstrip(".:"), path)
