"""`scripts/measure_mini.py`: figures, table and sheet of a few small scenes; what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from in_process import Done, run_script
from trainees import CORRECTING, small

SCRIPT = Path(__file__).parents[2] / "scripts" / "measure_mini.py"
SMALL = ("--size", "96", "--seed", "3")


def measure(*arguments: object) -> Done:
    return run_script(SCRIPT, *SMALL, *arguments)


def figures(done: Done, path: Path) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models") / "small"
    untrained = small(stirred=False, **{**CORRECTING, "hint": "overlay", "fill": 0.8, "steps": 1, "guidance": 1.0})
    untrained.save_pretrained(folder)
    return folder


def test_baselines_and_prefix(tmp_path: Path) -> None:
    out, sheet = tmp_path / "all.json", tmp_path / "sheet.png"
    baselines = ("--methods", "poisson,paste")
    done = measure(*baselines, "--scenes", 4, "--out", out, "--sheet", sheet, "--rows", 1)
    found = figures(done, out)
    assert found["scenes"] == 4
    assert found["fill"] == 0.75
    assert list(found["figures"]["all"]) == ["paste", "poisson"]
    assert found["bars"] == []
    assert "model" not in found
    assert "PSNR" in done.stdout
    assert np.asarray(Image.open(sheet)).shape[0] > 3 * 256
    fewer = figures(measure(*baselines, "--scenes", 2, "--out", out), out)
    assert fewer["each"]["number"] == found["each"]["number"][:2]
    for name in ("paste", "poisson"):
        for figure, values in found["each"]["values"][name].items():
            assert fewer["each"]["values"][name][figure] == values[:2]


def test_model(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    done = measure("--model", model, "--scenes", 4, "--dtype", "fp32", "--out", out)
    found = figures(done, out)
    assert list(found["figures"]["all"]) == ["parallel", "sequential", "paste", "poisson"]
    assert (found["steps"], found["dtype"], found["fill"]) == (1, "fp32", 0.8)
    assert found["model"]["trained_steps"] == 0
    # An untrained network that corrects its hint paints the paste, but for the seam and the smaller square.
    lead = found["parallel_minus"]["paste"]["all"]["psnr_region"]
    assert lead["scenes"] == 4
    assert abs(lead["mean"]) < 3
    assert [bar["met"] for bar in found["bars"] if bar["what"].startswith("psnr_region better")] != [True, True]
    assert "parallel minus paste" in done.stdout
    assert "NOT MET" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--methods", "paste,glue"], "--methods: got glue, expected some of parallel, sequential, paste, poisson"),
        (["--methods", ""], "--methods: got nothing"),
        ([], "--methods parallel and sequential need --model"),
        (["--methods", "paste", "--scenes", "0"], "--scenes: got 0, expected at least 1"),
        (["--methods", "paste", "--rows", "0"], "--rows: got 0, expected at least 1"),
        (["--methods", "paste", "--turn", "91"], "--turn: got 91, expected 0 to 90"),
        (["--methods", "paste", "--light", "1.5"], "--light: got 1.5, expected 0 to 1"),
        (["--methods", "paste", "--size", "32"], "--size: got 32, expected 64 to 1024"),
        (["--methods", "paste", "--out", "a.txt"], "--out a.txt: expected the name of a .json file"),
        (["--methods", "paste", "--sheet", "no/such/folder/a.png"], "in a folder that exists"),
        (["--model", "no/such/model", "--scenes", "1"], "no/such/model"),
    ],
)
def test_bad_input(arguments: list[str], text: str) -> None:
    done = run_script(SCRIPT, *arguments)
    assert done.returncode == 2
    assert text in done.stderr
    assert not done.stdout
