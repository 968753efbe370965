"""`pics infer --sheet`: one sheet of all samples."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from helpers import infer_command
from helpers.composites import BOXES, composed, make_sample, scene
from helpers.infer_command import records
from pics_cli.core.images.sheets import CAPTION_HEIGHT, TILE_GAP
from pics_cli.core.inference import sheets
from pics_cli.core.inference.sheets import ROW

BOX3 = (*BOXES, (4, 60, 40, 92))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a sample and a picture, in which commands run."""
    make_sample(tmp_path / "in/one")
    scene().save(tmp_path / "bg.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def infer(model: Path, *words: str) -> Result:
    """The command in this process."""
    return infer_command.infer("--model", model, "--steps", 1, *words)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("no/x.png", "--sheet no/x.png: no such folder: no\n\nhint: make it: mkdir -p no"),
        ("x.jpg", "--sheet x.jpg: expected the name of a .png file"),
        ("in", "--sheet in: expected the name of a .png file"),
        ("bg.png/x.png", "--sheet bg.png/x.png: no such folder: bg.png"),
    ],
)
def test_a_place_it_cannot_be_written_to(here: Path, tiny_model: Path, path: str, text: str) -> None:
    """Said before anything is made."""
    done = infer(tiny_model, "--input", "in", "--sheet", path)
    assert done.exit_code == 2
    assert text in done.stderr
    assert not (here / "results").exists()


def test_a_sheet_over_an_input(here: Path, tiny_model: Path) -> None:
    """Nor over an own result; nor does the output folder take the place of a sample."""
    for words in (["--input", "in"], ["--background", "bg.png", "--object", "obj.png", "--box", "0,0,40,40"]):
        scene().save(here / "obj.png")
        (here / "link.png").unlink(missing_ok=True)
        (here / "link.png").symlink_to("in/one/object_0.png" if words[0] == "--input" else "obj.png")
        before = (here / "link.png").read_bytes()
        done = infer(tiny_model, *words, "--sheet", "link.png")
        assert done.exit_code == 2
        assert "--sheet link.png: is object_0 " in done.stderr
        assert (here / "link.png").is_symlink()
        assert (here / "link.png").read_bytes() == before
        assert not list(here.glob("results/*/composed/*"))
    done = infer(tiny_model, "--input", "in", "--sheet", "results/in/composed/composed_one.png")
    assert "lies in the results results/in/composed, where nothing is written" in done.stderr
    assert "is --input in, which this run reads" in infer(tiny_model, "--input", "in", "--output", "./in").stderr
    assert "is the sample in/one" in infer(tiny_model, "--input", "in", "--output", "in/one").stderr


def test_pictures_over_inputs(here: Path, tiny_model: Path) -> None:
    """A result that becomes an object is not replaced by what is made of it, even with --overwrite."""
    scene().save(here / "obj.png")
    words = ["--background", "bg.png", "--output", "out", "--object"]
    assert infer(tiny_model, *words, "obj.png", "--box", "0,0,40,40").exit_code == 0
    made = (here / "out/composed/composed_bg.png").read_bytes()
    done = infer(tiny_model, *words, "out/composed/composed_bg.png", "--box", "0,0,40,40", "--overwrite")
    assert done.exit_code == 2
    assert "--output out/composed/composed_bg.png: is object_0 out/composed/composed_bg.png" in done.stderr
    assert (here / "out/composed/composed_bg.png").read_bytes() == made


def test_a_manifest_that_is_the_users(here: Path, tiny_model: Path) -> None:
    """Whatever is not of pics infer's making stays; what cannot be read may be anybody's."""
    scene().save(here / "obj.png")
    words = ["--background", "bg.png", "--output", "mine", "--object", "obj.png", "--box", "0,0,40,40"]
    (here / "mine").mkdir()
    path = here / "mine/manifest.jsonl"
    cut = '{"candidate": 0, "id": "' + "x" * (1 << 20) + '"}\n'
    listed = '{"file_name": "a.png", "text": "mine"}\n'
    for text in (listed, "a.png\tmine\n", "\n", "[" * 5000, '["candidate"]\n', "\udcff", cut):
        path.write_bytes(text.encode(errors="surrogateescape"))
        done = infer(tiny_model, *words)
        assert "mine: holds a manifest.jsonl that pics infer did not write" in done.stderr, text[:40]
        assert (done.exit_code, "fault of pics" in done.stderr) == (2, False)
        assert path.read_bytes() == text.encode(errors="surrogateescape")
    path.unlink()
    os.mkfifo(path)  # nobody writes into it
    done = infer(tiny_model, *words)
    assert (done.exit_code, "manifest.jsonl: cannot read: is a pipe, expected a file" in done.stderr) == (2, True)
    path.unlink()
    path.touch()  # as a run writes it that made no picture
    assert infer(tiny_model, *words).exit_code == 0
    assert len(records(here / "mine")) == 1


def row_of(sheet: np.ndarray, at: int) -> np.ndarray:
    """uint8 [ROW, W, 3]: the pictures of a row, without caption and margins."""
    return sheet[44 + at * (ROW + CAPTION_HEIGHT + TILE_GAP) :][:ROW, TILE_GAP:]


def test_one_sheet_of_all_samples(here: Path, tiny_model: Path) -> None:
    """Rows in the samples' order, those of an earlier run among them, those that failed not."""
    make_sample(here / "in/bad")
    (here / "in/bad/object_0.png").unlink()
    words = ["--input", "in", "--sheet", "results/in/sheet.png"]
    done = infer(tiny_model, *words)
    assert done.exit_code == 2
    assert "sheet                          results/in/sheet.png" in done.stdout
    first = np.asarray(Image.open(here / "results/in/sheet.png"))
    make_sample(here / "in/zwei", BOX3, seed=5)
    done = infer(tiny_model, *words)
    assert "there already                  1" in done.stdout
    sheet = np.asarray(Image.open(here / "results/in/sheet.png"))
    assert sheet.shape[0] - first.shape[0] == ROW + CAPTION_HEIGHT + TILE_GAP
    pictures = composed(here / "results/in")
    for at, (name, boxes) in enumerate((("one", BOXES), ("zwei", BOX3))):
        row = row_of(sheet, at)
        wide = ROW * 120 // 96
        side = ROW // len(boxes)
        result = cv2.resize(pictures[f"composed_{name}.png"], (wide, ROW), interpolation=cv2.INTER_AREA)
        assert (row[:, wide + side + 2 * TILE_GAP :][:, :wide] == result).all()
        before = cv2.resize(
            np.asarray(Image.open(here / f"in/{name}/image.png")), (wide, ROW), interpolation=cv2.INTER_AREA
        )
        drawn = (row[:, :wide] != before).any(2)
        x0, y0, x1, _ = (round(v * ROW / 96) for v in boxes[0])
        assert drawn[y0, x0 + 4 : x1 - 4].all()  # the outline of its region
        assert not drawn[: y0 - 3].any()
        # References on white, in a column.
        assert (row[4 : side - 4, wide + TILE_GAP :][:, 4 : side - 4] == 255).all(2).any()
        assert (row[: side * len(boxes), wide + TILE_GAP :][:, :side] != 255).any()


def test_a_sheet_is_no_longer_than_can_be_looked_at(
    here: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheets, "MAX_ROWS", 1)
    make_sample(here / "in/zwei", seed=5)
    assert infer(tiny_model, "--input", "in", "--sheet", "x.png").exit_code == 0
    assert Image.open(here / "x.png").height == 44 + ROW + CAPTION_HEIGHT + TILE_GAP + TILE_GAP


def test_no_sheet_where_nothing_was_made(here: Path, tiny_model: Path) -> None:
    (here / "in/one/object_0.png").unlink()
    done = infer(tiny_model, "--input", "in", "--sheet", "x.png")
    assert done.exit_code == 2
    assert "--sheet x.png: not written, there is no result to show" in done.stderr
    assert not (here / "x.png").exists()
