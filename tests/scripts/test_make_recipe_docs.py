"""docs/recipes.md is what the dataclasses say."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from make_recipe_docs import recipe_docs, value_text
from pics_cli.core.recipes.sources import CocoSource, RenderedSource
from pics_cli.core.recipes.training import TrainingRecipe
from pics_cli.core.recipes.training_sections import ModelShape

ROOT = Path(__file__).parents[2]


def test_it_is_current() -> None:
    assert recipe_docs() == (ROOT / "docs/recipes.md").read_text(), "run: python scripts/make_recipe_docs.py"


def test_every_key_has_a_row_with_its_limits_and_default() -> None:
    text = recipe_docs()
    for tree in (TrainingRecipe, ModelShape, CocoSource, RenderedSource):
        for field in fields(tree):
            assert f"\n| `{field.name}` | " in text, field.name
    assert "\n| `min_area_ratio` | number, 0 < value < 1 | `0.02` | An object's area" in text
    assert "\n| `learning_rate` | number, 0 < value | `1.0e-05` | At its highest. |" in text
    assert "\n| `rule` | `max_iou`, `largest` | `max_iou` | " in text


def test_an_unknown_kind_of_value_is_noticed() -> None:
    try:
        value_text(complex)
    except KeyError:
        return
    raise AssertionError("a value of an unknown kind has words")
