"""YAML of recipes and of --set: plain words are text, what no recipe can hold is an error with its line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pics_cli.core.recipes.base import load_recipe, parse_override
from pics_cli.core.recipes.dataset import DatasetRecipe, load_dataset
from pics_cli.core.recipes.yaml_values import YamlError, parse_yaml
from pics_cli.errors import PicsError

GOOD = """
kind: dataset
name: mine
out: out
source:
  format: coco
  splits:
    train: {annotations: [train.json], images: ["{file_name}"]}
"""
VALUES: list[tuple[str, Any]] = [
    ("2024-11-29", "2024-11-29"),
    ("2024-11-29 10:00:00", "2024-11-29 10:00:00"),
    ("010", "010"),
    ("0o10", "0o10"),
    ("1:30", "1:30"),
    ("1:30.5", "1:30.5"),
    ("[on, no, yes, off, y, n]", ["on", "no", "yes", "off", "y", "n"]),
    ("[true, False, null, ~]", [True, False, None, None]),
    ("[7, -7, +7, 1_000, 0x1F, 0b11, 0]", [7, -7, 7, 1000, 31, 3, 0]),
    ("[1.5, .5, -1.0e-05, 1e5, .inf]", [1.5, 0.5, -1e-5, "1e5", float("inf")]),
    ("{1: a, 2024-01-01: b, on: c, 1.5: d, ~: e}", {"1": "a", "2024-01-01": "b", "on": "c", "1.5": "d", "~": "e"}),
    ("[pictures/{stem}.jpg, {split}/{name}.png]", ["pictures/{stem}.jpg", "{split}/{name}.png"]),
    ("{shards: train/{00000..00010}.tar}", {"shards": "train/{00000..00010}.tar"}),
    ("pictures/{stem}.jpg", "pictures/{stem}.jpg"),
    ('["{stem}", "“x”"]', ["{stem}", "“x”"]),
    ("{a: &x {b: 1}, c: *x, d: {<<: *x, e: 2}}", {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2}}),
    ("5' 2“", "5' 2“"),
    ("", None),
]
FAULTS = [
    ("!!binary aGk=", "kind !!binary"),
    ("!!set {a, b}", "kind !!set"),
    ("!!omap [a: 1]", "kind !!omap"),
    ("!!timestamp 2024-11-29", "kind !!timestamp"),
    ("!!python/object/apply:os.getcwd []", "kind !!python/object/apply:os.getcwd"),
    ("!!int x", "invalid literal"),
    ("!!bool x", "no truth value"),
    ("!!float x", "could not convert"),
    ("!!map [1]", "kind !!map"),
    ("{[a, b]: c}", "a key that is a list or a mapping"),
    ("{{a: b}: c}", "a key that is a list or a mapping"),
    ("9" * 4301, "a number of 4,301 digits"),
    ("9223372036854775808", "a number of 19 digits, expected at most 18"),
    ("[" * 40 + "]" * 40, "nested more than 32 deep"),
    ("[" * 5000 + "]" * 5000, "nested more than 32 deep"),
    ("&a [*a]", "an alias refers to itself"),
    ("&a {b: *a}", "an alias refers to itself"),
    ("&a {b: &c [*a, *c]}", "an alias refers to itself"),
    ("*a", "undefined alias"),
    ("“plain”", "typographic"),
    ("[1, „plain“]", "typographic"),
    ("{<<: 3}", "merging"),
    ("a\x00b", "not allowed"),
    ("[a, b", "expected"),
    ("a: b: c", "not allowed here"),
    ("--- a\n--- b", "expected a single document"),
    ("[" + "a, " * 30_000 + "]", "stands for more than 20,000 values"),
    ("# " + "x" * (1 << 20), "characters, a recipe at most"),
]


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_the_same_in_a_file_and_on_the_command_line(text: str, value: object) -> None:
    assert parse_yaml(text) == (value, [])
    assert parse_yaml(f"key: {text}".encode()) == ({"key": value}, [])
    assert parse_override(f"key={text}").value == value


@pytest.mark.parametrize(("text", "words"), FAULTS, ids=[text[:20] for text, _ in FAULTS])
def test_faults_are_clear(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse_yaml(text)
    assert words in str(caught.value)
    with pytest.raises(PicsError) as refused:
        parse_override(f"key={text}")
    assert refused.value.message.startswith("--set key: ")
    assert words in refused.value.message
    assert len(refused.value.message) < 300
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(PicsError) as refused:
        load_dataset(path)
    assert refused.value.message.startswith(f"{path}: ")
    assert words in refused.value.message


def test_an_alias_bomb_is_refused_at_once() -> None:
    levels = ["l0: &l0 [a, a, a, a, a, a, a, a, a]"]
    levels += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 12)]
    merged = ["m0: &m0 {a: 1}", *(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}" for i in range(1, 12))]
    for lines in (levels, merged):
        start = time.monotonic()
        with pytest.raises(YamlError, match="more than 20,000 values"):
            parse_yaml("\n".join(lines))
        assert time.monotonic() - start < 5


def test_what_an_alias_repeats_is_a_copy() -> None:
    data, _ = parse_yaml("a: &a {b: []}\nc: *a")
    data["a"]["b"].append(1)
    assert data["c"] == {"b": []}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(GOOD.replace("mine", "façade").encode(encoding))
    assert load_dataset(path).name == "façade"


def test_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"name: \xff\xe9\n")
    with pytest.raises(PicsError, match="no UTF-8 text"):
        load_dataset(path)


def test_keys_given_twice_are_told_on_the_command_line_too() -> None:
    with pytest.raises(PicsError, match="--set pairs: objects: given twice, expected once"):
        parse_override("pairs={objects: 1, objects: 2}")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("seed=010", 'got "010", expected integer (YAML reads 010 as text; write 10)'),
        ("seed=1:30", 'got "1:30", expected integer'),
        ("compat=yes", 'got "yes", expected boolean (write true)'),
        ("compat=off", 'got "off", expected boolean (write false)'),
        ("name=2024", 'got 2024, expected string (write "2024" for text)'),
        ("pairs.classes.include=[true]", 'got true, expected string (write "true" for text)'),
        ("raw=$NOT_SET_ANYWHERE/x", "expected a path: $NOT_SET_ANYWHERE is not set"),
        ("out=~no_such_user/x", "no home folder of ~no_such_user is known"),
    ],
)
def test_what_was_meant_is_told(setting: str, words: str) -> None:
    data, _ = parse_yaml(GOOD)
    with pytest.raises(PicsError) as caught:
        load_recipe(Path("mine.yaml"), DatasetRecipe, [parse_override(setting)], data)
    assert words in caught.value.message


def test_home_and_variables_in_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("SETS", "/big")
    data, _ = parse_yaml(GOOD)
    overrides = [parse_override("raw=~/sets"), parse_override("out=${SETS}/{split}/x")]
    recipe = load_recipe(Path("mine.yaml"), DatasetRecipe, overrides, data)
    assert (recipe.raw, recipe.out) == ("/home/somebody/sets", "/big/{split}/x")
