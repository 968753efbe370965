"""What shells complete: commands, options, choices and names of recipes, without a library being loaded for it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from pics_cli.cli import app
from pics_cli.core.recipes.shipped import shipped_recipes


def completed(shell: str, *words: str) -> str:
    """What typer's script of a shell gets for the last word."""
    line = " ".join(("pics", *words))
    env = {"_PICS_COMPLETE": f"complete_{shell}", "COMP_WORDS": line, "COMP_CWORD": str(len(words)),
           "_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}  # fmt: skip
    return CliRunner().invoke(app, [], env=env, prog_name="pics").stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["build"], {"build-shards"}),
        (["build-shards", "rob"], {"roboflow"}),
        (["annotate", "objects"], {"objects365"}),
        (["train", "--recipe", "ti"], {"tiny"}),
        (["eval", "--recipe", "synth"], {"synth_bench"}),
        (["recipes", "synth"], {"synth", "synth_bench"}),
        (["infer", "--output-format", "j"], {"jpeg"}),
        (["infer", "--memory", "se"], {"sequential"}),
        (["cache", "c"], {"clean"}),
        (["cache", "clean", "--ye"], {"--yes"}),
        (["infer", "--qui"], {"--quiet"}),
        (["build-shards", "nothing"], set()),
        (["infer", "--model", "''", "--qui"], {"--quiet"}),
    ],
)
def test_words(words: list[str], expected: set[str]) -> None:
    assert expected <= set(completed("bash", *words).split())
    if not words[-1].startswith("--"):
        assert set(completed("bash", *words).split()) == expected


def test_shells_show_what_a_recipe_is_for() -> None:
    (lvis,) = (recipe for recipe in shipped_recipes() if recipe.name == "lvis")
    assert completed("fish", "build-shards", "lv").strip() == f"lvis\t{lvis.summary}"
    assert '"lvis":"LVIS v1' in completed("zsh", "build-shards", "lv")


def test_completion_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom pics_cli.cli import app\n"
        "try:\n    app(prog_name='pics')\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'numpy', 'yaml', 'rich', 'PIL') if name in sys.modules])"
    )
    env = {**os.environ, "_PICS_COMPLETE": "complete_bash", "COMP_WORDS": "pics build-shards lv", "COMP_CWORD": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["lvis", "[]", ""]
