"""`pics explain`: records of results in every format, and of files that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.composites import make_sample, scene
from helpers.infer_command import infer, records, typed
from pics_cli.core.images.stored_image import StoredImage
from pics_cli.core.inference.record import composed_name, write_composite

RECORD: dict[str, Any] = {
    "id": "a\x1b[2J", "candidate": 3, "seed": 7, "date": "2026-11-30T14:45:31Z", "order": [1, 0],
    "model": {"name": "mine", "fingerprint": "0123456789abcdef", "adapters": []},
    "settings": {"steps": 20, "guidance": 5.0, "feather": None}, "light": {"azimuth": -57.5},
    "boxes": [[1, 2, 3, 4], [5, 6, 7, 8]], "cutouts": ["alpha", "grabcut"], "shares": [0.9],
    "inputs": {"background": "ab" * 32, "object_0": "cd" * 32, "box_0": [1, 2, 3, 4]},
    "files": {"background": "x/\x9b31mbg.png"}, "versions": {"pics": "0.1.0"},
}  # fmt: skip


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_a_record_is_printed(tmp_path: Path, format: Any) -> None:
    path = tmp_path / "result\x1b.bin"
    write_composite(path, StoredImage(np.asarray(scene())), RECORD, format)
    done = typed("explain", path)
    assert done.exit_code == 0
    lines = {
        name.strip(): rest.strip() for name, _, rest in (line[2:].partition("  ") for line in done.stdout.splitlines())
    }
    assert done.stdout.startswith(f"{tmp_path}/result\\x1b.bin\n")
    assert lines["sample"] == "a\\x1b[2J"
    assert lines["model"] == "name mine, fingerprint 0123456789abcdef"
    assert lines["settings"] == "steps 20, guidance 5.0"
    assert (lines["made"], lines["seed"], lines["candidate"]) == ("2026-11-30T14:45:31Z", "7", "3")
    assert (lines["order, back to front"], lines["light"]) == ("1, 0", "azimuth -57.5")
    assert lines["background"] == "x/\\x9b31mbg.png, sha256 abababababab"
    assert lines["object 0"] == "sha256 cdcdcdcdcdcd"
    assert lines["box 0 (x0, y0, x1, y1)"] == "1, 2, 3, 4; cut out by alpha; fills 0.9 of it"
    assert lines["box 1 (x0, y0, x1, y1)"] == "5, 6, 7, 8; cut out by grabcut"
    assert json.loads(typed("explain", path, "--json").stdout) == RECORD


def test_what_is_no_result_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for suffix in ("png", "jpg", "webp", "tif"):
        scene().save(f"other.{suffix}")
    (tmp_path / "text\x1b.png").write_text("no picture")
    for name, format in (("cut.png", "png"), ("cut.jpg", "jpeg"), ("cut.webp", "webp")):
        path = tmp_path / name
        write_composite(path, StoredImage(np.asarray(scene())), RECORD, format)  # type: ignore[arg-type]
        path.write_bytes(path.read_bytes()[:-300])
    deep = json.loads('{"a":' * 600 + "1" + "}" * 600)
    write_composite(tmp_path / "odd.png", StoredImage(np.asarray(scene())), {"model": 3})
    write_composite(tmp_path / "deep.png", StoredImage(np.asarray(scene())), {"settings": deep})
    for name, text in {
        "nowhere.png": "error: nowhere.png: no such file\n",
        ".": "error: .: cannot read: is a folder, expected a file\n",
        "text\x1b.png": "error: text\\x1b.png: no PNG, JPEG or WebP\n",
        "other.tif": "error: other.tif: no PNG, JPEG or WebP\n",
        "other.png": "error: other.png: carries no record of pics\n",
        "other.jpg": "error: other.jpg: carries no record of pics\n",
        "other.webp": "error: other.webp: carries no record of pics\n",
        "cut.png": "error: cut.png: PNG cut short in its chunk b'IDAT'\n",
        "cut.jpg": "error: cut.jpg: Premature end of JPEG file\n",
        "cut.webp": "error: cut.webp: could not create decoder object\n",
        "odd.png": "error: odd.png: its record is not as pics writes it: ",
        "deep.png": "error: deep.png: its record is nested too deeply\n",
    }.items():
        done = typed("explain", name)
        assert done.exit_code == 2, name
        assert done.stderr.startswith(text), done.stderr
        assert done.stdout == ""


@pytest.mark.parametrize("odd", [3, None, "x", [], [[]], {}, {"a": [None, {"b": 1}]}, True])
def test_records_of_any_shape_are_shown(tmp_path: Path, odd: Any) -> None:
    """Anybody can write one."""
    keys = ("boxes", "cutouts", "shares", "files", "settings", "light", "seed", "date", "versions", "encoding", "order")
    write_composite(tmp_path / "a.png", StoredImage(np.asarray(scene())), {"id": "a", **dict.fromkeys(keys, odd)})
    done = typed("explain", tmp_path / "a.png")
    assert done.exit_code == 0, done.stderr


def test_formats_of_a_run(tmp_path: Path, tiny_model: Path) -> None:
    """One format a folder; resumed in it, refused in another, replaced by it when asked; no alpha is lost in JPEG."""
    make_sample(tmp_path / "in/a")
    make_sample(tmp_path / "in/b")
    background = scene().convert("RGBA")
    background.putalpha(200)
    background.save(tmp_path / "in/b/image.png")
    words = ("--input", tmp_path / "in", "--output", tmp_path / "out", "--model", tiny_model, "--steps", "1")
    done = infer(*words, "--output-format", "jpeg", "--save-grid")
    assert done.exit_code == 2
    assert (
        "failed: b: its background has alpha, which JPEG cannot hold: take --output-format png or webp" in done.stderr
    )
    assert "changed outside the regions    0 pixels, before JPEG" in done.stdout
    (record,) = records(tmp_path / "out")
    assert record["file"] == f"composed/{composed_name('a', 0, 'jpeg')}" == "composed/composed_a.jpg"
    assert record["encoding"] == {"format": "jpeg", "lossless": False, "quality": 95}
    shown = typed("explain", tmp_path / "out/composed/composed_a.jpg", "--json")
    assert json.loads(shown.stdout) == record
    assert (tmp_path / "out/grids/grid_a.png").exists()
    again = infer(*words, "--output-format", "jpeg")
    assert "pictures made            0" in again.stdout
    done = infer(*words, "--output-format", "webp")
    assert done.exit_code == 2
    assert "composed_a.jpg: --output-format: the folder has .jpg, this run .webp" in done.stderr
    done = infer(*words, "--output-format", "webp", "--overwrite")
    assert done.exit_code == 0, done.stderr
    names = [path.name for path in sorted((tmp_path / "out/composed").iterdir())]
    assert names == ["composed_a.webp", "composed_b.webp"]
    assert [one["id"] for one in records(tmp_path / "out")] == ["a", "b"]
