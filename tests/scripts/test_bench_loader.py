"""The loader's benchmark compares like with like: its baseline and our loader agree on what a training step sees."""

from __future__ import annotations

import importlib.util
import io
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.training_shards import STILL, members
from pics_cli.core.loading.training_sample import prepare_training_sample

BENCH = Path(__file__).resolve().parents[2] / "scripts" / "bench"


def plain_loader() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plain_loader", BENCH / "plain_loader.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("width", "height"), [(640, 480), (333, 601), (1280, 720), (90, 64)])
def test_same_target_hint_and_boxes(width: int, height: int) -> None:
    sample = members(width, width=width, height=height)
    options: dict[str, Any] = {
        "set_name": "s",
        "key": "k",
        "rng_keys": (0, 0),
        "seed": 0,
        "size": 512,
        "reference_size": 224,
    }
    ours = prepare_training_sample(sample, augment=STILL, hint="background", **options)
    decoded = {name: Image.open(io.BytesIO(data)) for name, data in sample.items()}
    plain = plain_loader().construct(decoded, ratio=1.2, growth=1.0)
    assert np.array_equal(np.rint((plain["jpg"] + 1) * 127.5), ours["target"])
    assert np.array_equal(np.rint((plain["hint"][..., :3] + 1) * 127.5), ours["control_image"])
    inside = np.full((512, 512), -1)
    x0, y0, x1, y1 = ours["content"]
    inside[y0:y1, x0:x1] = 0
    for k, (x0, y0, x1, y1) in enumerate(ours["boxes"]):
        region = np.zeros((512, 512))
        region[y0:y1, x0:x1] = inside[y0:y1, x0:x1] = 1
        assert np.array_equal(plain[f"mask{k}"], region)
    assert np.array_equal(plain["hint"][..., 3], inside)


def test_the_baseline_hands_over_what_the_research_code_does() -> None:
    sample = members(1, width=640, height=480)
    decoded = {name: Image.open(io.BytesIO(data)) for name, data in sample.items()}
    plain = plain_loader().construct(decoded, ratio=1.2, growth=1.1)
    assert sum(array.nbytes for array in plain.values()) == pytest.approx(11.85e6, rel=0.001)


@pytest.mark.slow
def test_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With its smallest pictures and some larger ones, of which no more goes to the trainer."""
    monkeypatch.setenv("PICS_CACHE", os.environ["PICS_CACHE"])  # which the script changes
    monkeypatch.syspath_prepend(BENCH)
    loader = importlib.import_module("loader")
    monkeypatch.setattr(loader, "SIZES", (loader.SIZES[0], (960, 720, 1, 6.0)))
    monkeypatch.setattr(loader, "BATCH", 2)
    monkeypatch.setattr(
        sys, "argv", ["loader.py", "worker", "--pictures", "2", "--rounds", "2", "--data", str(tmp_path)]
    )
    loader.main()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    assert len([row for row in rows if row[0].startswith("worker, ")]) == 2
    sent = [row for row in rows if row[0] == "MB a sample to the trainer"]
    assert len(sent) == 2
    assert all(row[3] == "yes" for row in sent)
