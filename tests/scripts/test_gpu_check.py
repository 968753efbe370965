"""scripts/gpu_check.sh, rehearsed on the CPU: it writes what it measured, also where a section fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _benches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts/bench")


@pytest.mark.slow
def test_rehearsal(tmp_path: Path) -> None:
    words = ["scripts/gpu_check.sh", str(tmp_path / "out"), "--tiny", "--rounds", "1", "features"]
    place = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False, env=place)
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "out/gpu_check.json").read_text())
    figures = [row["figure"] for row in data["rows"]]
    assert figures[:2] == ["features, batch 1", "features, batch 2"]
    lines = (tmp_path / "out/gpu_check.md").read_text().splitlines()
    assert len([line for line in lines if line.startswith("| ")]) == len(figures) + 2


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
