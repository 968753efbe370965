"""scripts/gpu_check.sh, rehearsed on the CPU: it writes what it measured, also where a section fails."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.in_process import run_script

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _benches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts/bench")


def started(root: Path, *words: str, codes: str = "exit 0") -> tuple[int, list[list[str]]]:
    """The exit code of `gpu_check.sh` in a copy of the project, and what it has Python do, which is written down."""
    for name in ("scripts", ".venv/bin"):
        (root / name).mkdir(parents=True)
    shutil.copy(ROOT / "scripts/gpu_check.sh", root / "scripts")
    python = root / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\necho "$(pwd) $@" >>"{root}/started"\n{codes}\n')
    python.chmod(0o755)
    done = subprocess.run([root / "scripts/gpu_check.sh", *words], cwd="/", check=False)
    places, *commands = zip(*(line.split(" ", 1) for line in (root / "started").read_text().splitlines()), strict=True)
    assert set(places) == {str(root)}
    return done.returncode, [command.split() for command in commands[0]]


def test_rehearsal(tmp_path: Path) -> None:
    """A command that the shell script starts, run in this process, which has the libraries."""
    words = [str(tmp_path / "out"), "--tiny", "--rounds", "1", "features"]
    code, ((script, *given),) = started(tmp_path / "project", *words)
    assert code == 0
    done = run_script(ROOT / script, *given)
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "out/gpu_check.json").read_text())
    figures = [row["figure"] for row in data["rows"]]
    assert figures[:2] == ["features, batch 1", "features, batch 2"]
    lines = (tmp_path / "out/gpu_check.md").read_text().splitlines()
    assert len([line for line in lines if line.startswith("| ")]) == len(figures) + 2


@pytest.mark.parametrize("codes", ["exit 0", '[ "$2" != pytest ]', '[ "$2" = pytest ]'])
def test_the_tests_run_first_and_each_failure_counts(tmp_path: Path, codes: str) -> None:
    code, (tests, check) = started(tmp_path, "DIR", "sam", codes=codes)
    assert code == (codes != "exit 0")
    assert tests[:5] == ["-m", "pytest", "-q", "-m", "gpu"]
    assert check == ["scripts/bench/gpu_check.py", "--out", "DIR", "sam"]


def test_paths_agree_in_every_precision() -> None:
    import gpu_check
    from networks import Run

    rows = list(gpu_check.parity(Run(tiny=True, rounds=1)))
    assert [row.figure.split(", ")[1] for row in rows[::2]] == ["float32", "float16", "bfloat16"]
    assert all(row.met for row in rows)


def test_a_section_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_check

    def broken(_run: object) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setitem(gpu_check.SECTIONS, "sam", broken)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--tiny", "--out", str(tmp_path), "sam"])
    with pytest.raises(SystemExit) as stop:
        gpu_check.main()
    assert stop.value.code == 1
    (row, _) = json.loads((tmp_path / "gpu_check.json").read_text())["rows"]
    assert row["result"] == "RuntimeError: no kernel image is available"


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import gpu_check

    monkeypatch.setattr(gpu_check, "device_for", lambda _run: None)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    with pytest.raises(SystemExit) as stop:
        gpu_check.main()
    assert stop.value.code == 2
    assert "no CUDA device here; --tiny rehearses" in capsys.readouterr().err
