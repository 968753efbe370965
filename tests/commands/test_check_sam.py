"""`pics check-sam`: weights that have learnt nothing do not pass, and what it says of them is drawn."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.detection import save_tiny
from pics_cli.core.segmentation import check_weights

Pics = Callable[..., Any]


@pytest.mark.slow
def test_random_weights_do_not_work(pics: Pics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_weights.SCENES == 20
    monkeypatch.setattr(check_weights, "SCENES", 5)  # each takes a third of a second
    save_tiny(tmp_path / "sam")
    done = pics("check-sam", "--sam", "sam", "--device", "cpu", "--sheet", "sheet.png")
    assert done.returncode == 1, done.stderr
    rows = re.findall(r"scene (\d+) +([\d., ]+)\n", done.stdout)
    assert [int(number) for number, _ in rows] == list(range(5))
    each = [float(value) for _, values in rows for value in values.split(", ")]
    assert 6 <= len(each) <= 10
    mean = float(re.findall(r"mean +([\d.]+)", done.stdout)[0])
    assert mean == pytest.approx(np.mean(each), abs=1e-3)
    assert "below 0.8: these weights do not work" in done.stdout
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 1000
    monkeypatch.setattr(check_weights, "SCENES", 2)
    assert pics("check-sam", "--sam", "sam", "--device", "cpu", "--least", "0").returncode == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--sam", "nowhere"), "nowhere"),
        (("--sam", "vit_b"), "sam_vit_b_01ec64.pth"),
        (("--sam", "vit_b", "--checkpoint", "none.pth"), "none.pth"),
        (("--sheet", "sheet.jpg"), "--sheet sheet.jpg: expected the name of a .png file"),
    ],
)
def test_refused(pics: Pics, words: tuple[str, ...], text: str) -> None:
    done = pics("check-sam", *words)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
