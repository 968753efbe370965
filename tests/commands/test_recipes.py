"""`pics recipes`: the list, and every value of one with where it is from."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from pics_cli.commands.results import schema
from pics_cli.core.recipes.base import find_recipe, plain_recipe, recipe_kind
from pics_cli.core.recipes.dataset import load_dataset
from pics_cli.core.recipes.shipped import recipe_names, shipped_recipes


def test_the_list_has_every_recipe(pics) -> None:
    text = pics("recipes").stdout
    listed = json.loads(pics("recipes", "--json").stdout)
    jsonschema.validate(listed, schema("recipes"))
    assert [entry["name"] for entry in listed["recipes"]] == recipe_names()
    for entry in listed["recipes"]:
        assert entry["kind"] == recipe_kind(find_recipe(entry["name"]))
        assert entry["name"] in text
        assert 10 < len(entry["summary"]) < 200 or entry["name"] == "objects365"
        assert entry["summary"] in find_recipe(entry["name"]).read_text().replace("\n# ", " ")


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_shown(pics, name: str) -> None:
    done = pics("recipes", name, "--json")
    record = json.loads(done.stdout)
    jsonschema.validate(record, schema("recipes"))
    assert (record["name"], record["path"]) == (name, str(find_recipe(name)))
    if record["kind"] == "dataset":
        assert record["recipe"] == plain_recipe(load_dataset(find_recipe(name)))


def test_where_a_value_is_from(pics, tmp_path: Path) -> None:
    recipe = "{kind: dataset, name: a, out: a, pairs: {objects: 3}, source: {format: synth, size: 64, "
    (tmp_path / "a.yaml").write_text(recipe + "relations: {apart: 1}, splits: {train: {pool: train, scenes: 1}}}}")
    words = ["recipes", "a.yaml", "--set", "pairs.crowd=keep"]
    rows = {row[0]: row[1:] for line in pics(*words).stdout.splitlines() if (row := line.split())}
    assert rows["pairs.objects"] == ["3"]
    assert rows["pairs.crowd"] == ['"keep"', "--set"]
    assert rows["pairs.contained"] == ['"drop"', "default"]
    record = json.loads(pics(*words, "--json").stdout)
    assert "pairs.contained" in record["defaults"]
    assert not {"pairs.objects", "pairs.crowd", "name"} & set(record["defaults"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "seed=1"], "error: --set goes with the name of a recipe"),
        (["lvis", "--set", "seed"], "error: --set 'seed': expected key.path=value"),
        (["lvis", "--set", "sed=1"], "error: --set sed: unknown key"),
        (["nowhere.yaml"], "error: nowhere.yaml: no such recipe file"),
        (["other.yaml"], "error: other.yaml: kind: got music, expected dataset, training, evaluation"),
    ],
)
def test_errors(pics, tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "other.yaml").write_text("kind: music\n")
    done = pics("recipes", *words)
    assert (done.returncode, done.stderr.startswith(message)) == (2, True), done.stderr


def test_recipes_of_some_kinds() -> None:
    assert {recipe.kind for recipe in shipped_recipes("training", "evaluation")} == {"training", "evaluation"}
