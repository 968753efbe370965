"""Recipes: every shipped one loads; every fault is named with file, key, what was found and what is allowed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pics_cli.core.recipes.base import (
    Override,
    digest,
    find_recipe,
    parse_override,
    parse_overrides,
    recipe_kind,
)
from pics_cli.core.recipes.dataset import dataset_identity, load_dataset
from pics_cli.core.recipes.shipped import recipe_names
from pics_cli.errors import PicsError

GOOD = """
kind: dataset
name: mine
raw: my_data
out: data/{split}/mine
source:
  format: coco
  splits:
    train: {annotations: [train.json], images: ["{file_name}"]}
"""


def load(folder: Path, text: str, *overrides: Override):
    path = folder / "mine.yaml"
    path.write_text(text)
    return load_dataset(path, overrides)


def test_the_shipped_recipes_are_there() -> None:
    assert {"lvis", "coco", "objects365"} <= set(recipe_names())


DATASETS = [name for name in recipe_names() if recipe_kind(find_recipe(name)) == "dataset"]


@pytest.mark.parametrize("name", DATASETS)
def test_shipped_recipe_loads_and_opens_with_its_command(name: str) -> None:
    path = find_recipe(name)
    recipe = load_dataset(path)
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"pics build-shards {name} " in line for line in comment)
    assert "train" in recipe.source.splits
    assert recipe.out.startswith("data/{split}/")
    assert json.loads(json.dumps(dataset_identity(recipe))) == dataset_identity(recipe)


def test_defaults(tmp_path: Path) -> None:
    recipe = load(tmp_path, GOOD)
    assert (recipe.seed, recipe.shards.size, recipe.pairs.objects) == (0, 1000, 2)
    assert (recipe.pairs.rule, recipe.pairs.contained, recipe.pairs.min_area_ratio) == ("max_iou", "drop", 0.02)


BROKEN = [
    ("pairs: {min_area_ratio: 1.7}", "mine.yaml: pairs.min_area_ratio: got 1.7, expected 0 < value < 1"),
    ("pairs: {min_area_ratio: 0}", "pairs.min_area_ratio: got 0, expected 0 < value < 1"),
    ("pairs: {objects: 5}", "pairs.objects: got 5, expected 1 <= value <= 4"),
    ("pairs: {objects: two}", 'pairs.objects: got "two", expected integer'),
    ("pairs: {rule: biggest}", "pairs.rule: got \"biggest\", expected 'max_iou' or 'largest'"),
    ("pairs: {contained: yes}", "pairs.contained: got \"yes\", expected 'drop' or 'keep'"),
    ("pairs: {min_area: 0.1}", "pairs.min_area: unknown key, nearest: min_area_ratio, allowed: rule, objects"),
    ("pairs: 3", "pairs: got 3, expected a mapping"),
    ("pairs: {classes: {include: person}}", 'pairs.classes.include: got "person", expected'),
    ("shards: {size: 0}", "shards.size: got 0, expected 1 <= value"),
    ("seed: 1e3", 'seed: got "1e3", expected integer (YAML reads 1e3 as text; write 1000)'),
    ("seed: -1", "seed: got -1, expected 0 <= value"),
    ("colour: red", "mine.yaml: colour: unknown key, allowed: kind, name, raw"),
    ("name: other", "mine.yaml: line 10: name: given twice, expected once"),
]


@pytest.mark.parametrize(("line", "words"), BROKEN)
def test_broken_recipe_is_named(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(PicsError) as caught:
        load(tmp_path, GOOD + line + "\n")
    assert words in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("kind: dataset", "kind: training", "a recipe of kind training, expected one of kind dataset"),
        ("kind: dataset\n", "", "kind: missing"),
        ("format: coco", "format: via", "source.format: got \"via\", expected 'coco'"),
        ("train.json", "../train.json", "a path inside the raw folder, without '..'"),
        ("train.json", "/etc/train.json", "a path inside the raw folder, without '..'"),
        ("{file_name}", "{filename}", "expected plain fields among split, file_name, name"),
        ("{file_name}", "{file_name", "expected a path with fields in braces"),
        ("{file_name}", "{file_name:d}", "expected plain fields among"),
        ("{file_name}", "{file_name!r}", "expected plain fields among"),
        ("train.json", '"{name}.json"', "expected plain fields among split"),
        ("name: mine", "name: &loop [*loop]", "mine.yaml"),
        ("name: mine", 'name: ""', 'name: got ""'),
        (GOOD, "- a\n- b", "expected a mapping that starts with kind: …"),
        (GOOD, "", "is empty, expected a mapping"),
        (GOOD, "kind: [unclosed", "not YAML"),
        (GOOD, "!!python/object/apply:os.getcwd []", "not YAML"),
    ],
)
def test_broken_start_of_a_recipe_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(PicsError) as caught:
        load(tmp_path, GOOD.replace(old, new))
    assert words in caught.value.message


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(PicsError) as caught:
        load(tmp_path, GOOD + "seed: x\npairs: {objects: 9, rul: 1}\nname: again\n")
    assert len(caught.value.message.splitlines()) == 4


def test_override_reaches_any_key_and_names_its_flag(tmp_path: Path) -> None:
    recipe = load(tmp_path, GOOD, parse_override("pairs.classes.include=[cup, bowl]"), parse_override("seed=7"))
    assert recipe.pairs.classes.include == ("cup", "bowl")
    assert recipe.seed == 7
    with pytest.raises(PicsError) as caught:
        load(tmp_path, GOOD, Override("pairs.objects", 7, "--objects"), parse_override("pairs.rul=x"))
    assert "--objects: got 7, expected 1 <= value <= 4" in caught.value.message
    assert "--set pairs.rul: unknown key, nearest: rule" in caught.value.message


@pytest.mark.parametrize("text", ["pairs.objects", "=3", "a..b=3", "a=[1"])
def test_malformed_override_is_refused(text: str) -> None:
    with pytest.raises(PicsError, match="--set"):
        parse_override(text)


def test_override_through_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PicsError, match=r"--set name\.x: name holds"):
        load(tmp_path, GOOD, parse_override("name.x=3"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lvsi", "did you mean lvis"),
        ("LVIS", "did you mean lvis"),
        ("qqq", "known: bdd100k"),
        ("no/such.yaml", "shipped"),
    ],
)
def test_unknown_recipe_names_the_nearest(name: str, words: str) -> None:
    with pytest.raises(PicsError) as caught:
        find_recipe(name)
    assert words in (caught.value.hint or "")


def test_folders_are_no_part_of_the_identity(tmp_path: Path) -> None:
    base = load(tmp_path, GOOD)
    moved = load(tmp_path, GOOD, Override("raw", "elsewhere", "--raw"), Override("out", "there", "--out"))
    assert digest(dataset_identity(base)) == digest(dataset_identity(moved))
    assert digest(dataset_identity(base)) != digest(
        dataset_identity(load(tmp_path, GOOD, Override("seed", 1, "--seed")))
    )


def test_flags_apply_after_settings() -> None:
    flags = {"pairs.objects": ("--objects", 3), "seed": ("--seed", None)}
    overrides = parse_overrides(["pairs={objects: 2}"], flags)
    assert overrides == [Override("pairs", {"objects": 2}, "--set pairs"), Override("pairs.objects", 3, "--objects")]
    assert parse_overrides(None, {}) == []
