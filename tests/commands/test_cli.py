"""The command line itself: help, version, unknown words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from make_cli_docs import cli_docs, json_docs, json_schemas
from pics_cli.commands.runner import handle_errors

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["build-shards", "lvis", "--limits", "3"], "No such option: --limits"),
        (["build-shards", "lvis", "--limit", "0"], "Invalid value for '--limit'"),
        (["build-shards", "lvis", "--limit", "many"], "Invalid value for '--limit'"),
        (["build-shards", "lvis", "--raw"], "requires an argument"),
        (["build-shards", "--dry-run"], "no dataset named"),
        (["build-shards", "lvsi"], "unknown dataset 'lvsi'\n\nhint: did you mean lvis?"),
        (["build-shards", "mine.yaml"], "mine.yaml: no such recipe file"),
        (["build-shards", "./"], "./: is a folder, expected a recipe file"),
        (["infer", "--scheduler", "dpm"], "Invalid value for '--scheduler': 'dpm' is not one of 'ddim'"),
        (["train", "tiny"], "unexpected extra argument (tiny)\n\nhint: a value stands after its option"),
        (["infer", "--box", "10", "20", "30"], "unexpected extra arguments (20 30)\n\nhint: a value stands after"),
        (["eval", "--compare", "a.json"], "requires 2 arguments."),
        (["build-shards", "lvis", "--contact-sheet", "x.jpg"], "expected the name of a .png file"),
        (["build-shards", "lvis", "--area-ratio", "2"], "--area-ratio: got 2.0, expected 0 < value < 1"),
        (["build-shards", "lvis", "--objects", "5"], "--objects: got 5, expected 1 <= value <= 4"),
        (["build-shards", "lvis", "--shard-size", "0"], "--shard-size: got 0, expected 1 <= value"),
        (["build-shards", "lvis", "--seed", "-1"], "--seed: got -1, expected 0 <= value"),
        (["build-shards", "lvis", "--set", "pairs"], "--set 'pairs': expected key.path=value"),
        (["build-shards", "lvis", "--set", "pairs.rul=x"], "--set pairs.rul: unknown key, nearest: rule"),
        (
            ["build-shards", "lvis", "--split", "tset", "--raw", "nowhere"],
            "LVIS has no split 'tset'\n\nhint: its recipe knows",
        ),
        (["build-shards", "lvis"], "raw folder data/raw/COCO does not exist"),
        (["build-shards", "lvis", "--out", ""], "error: --out: is empty\n\nhint: is a variable of the shell in it"),
        (["build-shards", ""], "error: DATASET: is empty"),
        (["infer", "--background", "a.png", "--object", "b.png", "--object", ""], "error: --object: is empty"),
        (["eval", "--compare", "a.json", ""], "error: --compare: is empty"),
        (["build-shards", "lvis", "--seed", "1", "--set", "seed=2"], "seed is given twice on the command line"),
        (["build-shards", "lvis", "--check", "."], "--check DIR goes with --workers only"),
        (["build-shards", "--check", ".", "--overwrite"], "--check DIR goes with --workers only"),
        (["build-shards", "lvis", "--set", "pairs.classes.include=cup"], "expected a list, such as [a, b]"),
        (["build-shards", "--check", "nowhere"], "nowhere: no such folder"),
        (["build-shards", "--check", "."], "no .tar shard in it"),
    ],
)
def test_wrong_words_are_told_in_one_line(pics, arguments: list[str], words: str) -> None:
    done = pics(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_version(pics) -> None:
    assert re.fullmatch(r"pics \d+\.\d+\.\d+\n", pics("--version").stdout)


def test_the_docs_show_the_help_of_every_command() -> None:
    """What the script writes cannot lag behind."""
    for name, text in (("cli.md", cli_docs()), ("json.md", json_docs()), ("json_schema.json", json_schemas())):
        assert text == (ROOT / "docs" / name).read_text(), "run: python scripts/make_cli_docs.py"


@pytest.mark.parametrize("asked", [False, True])
def test_a_fault_of_ours_is_told_and_not_shown_as_a_traceback(asked: bool, monkeypatch, capsys) -> None:
    """Unless somebody asks for it, to report it."""

    def fault() -> None:
        raise LookupError("no\nsuch thing")

    if asked:
        monkeypatch.setenv("PICS_TRACEBACK", "1")
        with pytest.raises(LookupError):
            handle_errors(fault)()
        return
    with pytest.raises(typer.Exit) as stop:
        handle_errors(fault)()
    assert stop.value.exit_code == 1
    text = capsys.readouterr().err
    assert text.startswith("error: LookupError: no such thing\n\nhint: ")
    assert "--verbose" in text
