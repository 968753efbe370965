"""Imports point one way, and the command starts without the heavy ones."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pics_cli

PACKAGE = Path(pics_cli.__file__).parent
# Not pydantic: typer itself loads it where it is installed.
HEAVY = ("torch", "numpy", "cv2", "PIL", "diffusers", "transformers", "accelerate", "webdataset", "rich", "yaml")
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, at the top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield f"{node.module}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def banned(path: Path) -> tuple[str, ...]:
    """What a file may not import, by its place in cli → commands → core."""
    inside = path.relative_to(PACKAGE).parts
    outer = ("pics_cli.cli", "pics_cli.commands", "pics_cli.console", "typer", "click", "rich", "tqdm")
    if inside[:2] == ("core", "model"):
        return (*outer, "pics_cli.core.data", "pics_cli.training", "pics_cli.evaluation")
    if inside[0] == "core":
        return outer
    if inside[0] == "commands":
        return ("pics_cli.cli",)
    return ("pics_cli.cli", "pics_cli.commands") if inside[0] in ("errors.py", "console.py") else ()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    for name in imports(path):
        for other in banned(path):
            assert not f"{name}.".startswith(f"{other}."), f"{path} imports {name}"


@pytest.mark.parametrize("arguments", [["--help"], ["build-shards", "--help"], ["infer", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom pics_cli.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"print('heavy:', [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"
