"""The wheel holds what the command needs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hatchling.builders import wheel as builder

ROOT = Path(__file__).parents[1]


def test_wheel_ships_recipes_and_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = SimpleNamespace(**{**vars(zipfile), "ZIP_DEFLATED": zipfile.ZIP_STORED})
    monkeypatch.setattr(builder, "zipfile", stored)  # compressing weights takes seconds
    list(builder.WheelBuilder(str(ROOT)).build(directory=str(tmp_path)))
    (wheel,) = tmp_path.glob("pics_cli-*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        entry = next(name for name in names if name.endswith("entry_points.txt"))
        assert "pics = pics_cli.cli:main" in file.read(entry).decode()
        file.extractall(tmp_path / "installed", [name for name in names if not name.startswith("pics_cli/models/")])
    for recipe in (ROOT / "recipes").glob("*.yaml"):
        assert f"pics_cli/recipes/{recipe.name}" in names
    for bundled in (path for name in ("models", "photos", "samples") for path in (ROOT / "pics_cli" / name).rglob("*")):
        if bundled.is_file():
            assert bundled.relative_to(ROOT).as_posix() in names
    assert "pics_cli/models/pics-mini/files.json" in names
    assert {f"pics_cli/ui/static/{path.name}" for path in (ROOT / "pics_cli/ui/static").iterdir()} <= set(names)
    assert any(name.startswith("pics_cli/samples/") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "scripts/"))]
    done = subprocess.run(
        [sys.executable, "-m", "pics_cli", "build-shards", "lvis", "--raw", "none"],
        cwd=tmp_path / "installed", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "raw folder none does not exist" in done.stderr
