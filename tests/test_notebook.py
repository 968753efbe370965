"""The notebook runs from its first cell to its last, with a few steps for its minute of training."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

NOTEBOOK = Path(__file__).parents[1] / "docs/notebooks/composite.ipynb"
# What takes the minute, and what takes seconds.
SHORTER = {
    "steps = 60": "steps = 2",
    "--limit 200": "--limit 8",
    "--split val --limit 16": "--split val --limit 2",
    "--set validation.samples=8": "--batch-size 2 --set validation.samples=2",
}


def cells() -> list[str]:
    """Sources of the code cells, shortened."""
    text = "\0".join(
        "".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"
    )
    for long, short in SHORTER.items():
        assert text.count(long) == 1
        text = text.replace(long, short)
    return text.split("\0")


def test_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pics) -> None:
    monkeypatch.chdir(tmp_path)

    def shell(line: str) -> None:
        """As IPython runs a line behind an exclamation mark."""
        program, *words = shlex.split(line.format_map(names))
        assert program == "pics"
        done = pics(*words)
        assert done.returncode == 0, done.stderr

    names: dict[str, Any] = {"shell": shell}
    shown = []
    for source in cells():
        body = ast.parse(re.sub("^!(.*)$", lambda line: f"shell({line[1]!r})", source, flags=re.MULTILINE)).body
        last = body[-1]
        exec(compile(ast.Module(body[:-1], []), NOTEBOOK.name, "exec"), names)
        if isinstance(last, ast.Expr) and not ast.unparse(last).startswith(("print", "shell")):
            shown.append(eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), names))
        else:
            exec(compile(ast.Module([last], []), NOTEBOOK.name, "exec"), names)
    assert len(shown) == 7
    assert all(isinstance(picture, Image.Image) for picture in shown)
    words = capsys.readouterr().out
    assert "pixels changed outside the regions: 0\n" in words
    assert "values that differ: 0\n" in words


def test_is_committed_without_results() -> None:
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
