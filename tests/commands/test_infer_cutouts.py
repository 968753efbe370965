"""`pics infer` with references as people have them: photographs, plain backgrounds, aspects unlike their regions'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.composites import BOXES, composed, make_sample, thing
from helpers.infer_command import infer, records
from helpers.photographs import photograph
from helpers.trainees import LAYERS, small


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "layers"
    small(**{**LAYERS, "steps": 1, "guidance": 1.0, "scheduler": "ddim"}).save_pretrained(folder)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def with_photograph(folder: Path, seed: int = 0) -> Path:
    make_sample(folder, seed=seed, alpha=False)
    Image.fromarray(photograph(160, shadow=0.4)[0]).save(folder / "object_1.png")
    return folder


def test_each_reference_s_way_is_recorded_and_told(here: Path, model: Path) -> None:
    """The same folder is resumed with the same way of cutting, and refused with another."""
    with_photograph(here / "in/a")
    words = ["--input", "in/a", "--model", model, "--device", "cpu", "--output", "out", "--save-grid"]
    done = infer(*words)
    assert done.exit_code == 0, done.stderr
    note = "a: in/a/object_1.png has neither alpha nor a plain background: cut out of its photograph by GrabCut"
    assert note in " ".join(done.stderr.split()) + " ".join(done.stdout.split())
    (record,) = records(here / "out")
    assert record["cutouts"] == ["plain", "grabcut"]
    assert record["settings"]["cutout"] == "auto (grabcut)"
    assert infer(*words).exit_code == 0
    grid = (here / "out/grids/grid_a.png").read_bytes()
    (here / "out/grids/grid_a.png").unlink()
    assert infer(*words).exit_code == 0
    assert (here / "out/grids/grid_a.png").read_bytes() == grid
    refused = infer(*words, "--cutout", "none")
    assert refused.exit_code == 2
    assert "settings.cutout" in refused.stderr
    before = composed(here / "out")
    whole = infer(*words, "--cutout", "none", "--overwrite")
    assert "is a photograph with its background, taken as it is (--cutout none)" in " ".join(
        (whole.stderr + whole.stdout).split()
    )
    assert (composed(here / "out")["composed_a.png"] != before["composed_a.png"]).any()


def test_a_reference_that_cannot_be_cut_out(here: Path, model: Path) -> None:
    """Alone it ends the command; in a folder it is counted, and the others are made."""
    make_sample(here / "in/good")
    make_sample(here / "in/bad", seed=1)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (60, 60, 3), dtype=np.uint8)).save(here / "in/bad/object_0.png")
    words = ["--model", model, "--device", "cpu"]
    line = "object_0.png: no object found by GrabCut; give it an alpha channel, or take it as it is with --cutout none"
    single = infer(
        "--background", "in/good/image.png", "--object", "in/bad/object_0.png", "--box", "20,16,50,50", *words
    )
    assert single.exit_code == 2
    assert line in " ".join((single.stdout + single.stderr).split())
    assert "Traceback" not in single.stderr
    both = infer("--input", "in", *words)
    assert both.exit_code == 2
    assert "1 of 2 samples failed" in both.stderr
    assert "failed: uncut_reference" in both.stdout + both.stderr
    assert [record["id"] for record in records(here / "results/in")] == ["good"]
    assert infer("--input", "in", *words, "--cutout", "none").exit_code == 2, "good was made with --cutout auto"
    assert infer("--input", "in", *words, "--cutout", "none", "--output", "whole").exit_code == 0


def test_no_weights(here: Path, model: Path) -> None:
    make_sample(here / "in/a")
    done = infer("--input", "in", "--model", model, "--cutout", "sam")
    assert done.exit_code == 2
    assert "--cutout sam: no weights of Segment Anything in checkpoints/" in done.stderr


def test_an_object_of_another_aspect_is_told_and_made_to_fit(here: Path, model: Path) -> None:
    make_sample(here / "in/a")
    thing(1, (90, 20)).save(here / "in/a/object_1.png")
    words = ["--input", "in/a", "--model", model, "--device", "cpu"]
    pictures = {}
    for fit, told in (("contain", True), ("cover", False), ("stretch", False)):
        done = infer(*words, "--fit", fit, "--output", fit)
        assert done.exit_code == 0, done.stderr
        text = " ".join((done.stdout + done.stderr).split())
        assert ("object 1 takes 16% of its region's place for it, as its aspect is another (see --fit)" in text) == told
        (record,) = records(here / fit)
        assert record["settings"]["fit"] == fit
        assert (record["shares"][1] < 0.25) == told
        pictures[fit] = composed(here / fit)["composed_a.png"]
        changed = (pictures[fit] != np.asarray(Image.open(here / "in/a/image.png"))).any(2)
        x0, y0, x1, y1 = BOXES[1]
        assert changed[y0:y1, x0:x1].any()
    assert (pictures["contain"] != pictures["cover"]).any()
    assert (pictures["stretch"] != pictures["cover"]).any()
    refused = infer(*words, "--fit", "cover", "--output", "contain")
    assert refused.exit_code == 2
    assert "settings.fit" in refused.stderr
