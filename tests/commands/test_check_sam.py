"""`pics check-sam`: weights that have learnt nothing do not pass, and what it says of them is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.detection import save_tiny
from helpers.in_process import Done, run_script

SCRIPT = Path(__file__).parents[2] / "scripts/check_sam.py"


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def checked(*words: str) -> Done:
    return run_script(SCRIPT, *words)


@pytest.mark.slow
def test_random_weights_do_not_work(tmp_path: Path) -> None:
    save_tiny(tmp_path / "sam")
    done = checked("--sam", "sam", "--device", "cpu", "--sheet", "sheet.png")
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:20]] == [f"scene {number:2}" for number in range(20)]
    each = [float(value) for line in lines[:20] for value in line.split("IoU ")[1].split(", ")]
    assert 30 <= len(each) <= 40
    assert lines[20] == f"mean IoU {np.mean(each):.3f}: below 0.8: these weights do not work"
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 1000
    assert checked("--sam", "sam", "--device", "cpu", "--least", "0").returncode == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--sam", "nowhere"), "nowhere"),
        (("--sam", "vit_b"), "sam_vit_b_01ec64.pth"),
        (("--sam", "vit_b", "--checkpoint", "none.pth"), "none.pth"),
        (("--sheet", "sheet.jpg"), "--sheet sheet.jpg: expected the name of a .png file"),
    ],
)
def test_refused(words: tuple[str, ...], text: str) -> None:
    done = checked(*words)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
