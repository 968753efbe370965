"""The record in a PNG: written before the pixels, found damaged, compared, gathered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.composites import SIZE, scene
from pics_cli.core.images.stored_image import StoredImage
from pics_cli.core.inference.record import (
    Damaged,
    Foreign,
    changes,
    composed_name,
    model_fingerprint,
    read_record,
    write_composite,
    write_manifest,
)

RECORD: dict[str, Any] = {
    "id": "-bücher\udcff",
    "candidate": 0,
    "seed": 3,
    "inputs": {"background": "12", "object_0": "34", "box_0": [1, 2, 3, 4]},
    "settings": {"steps": 20, "order": None},
    "model": {"name": "models/a", "fingerprint": "0123456789abcdef"},
}


def test_a_png_carries_its_record_before_the_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture = np.asarray(scene())
    write_composite(path, StoredImage(picture), RECORD)
    with Image.open(path) as image:
        # Pillow has read the header alone here: what stands behind the pixels it does not know yet.
        assert json.loads(image.info["pics"]) == RECORD
        assert image.size == SIZE
        assert np.array_equal(np.asarray(image), picture)
    assert read_record(path) == read_record(path, whole=False) == RECORD
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_damage_is_found_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert read_record(path) is None
    write_composite(path, StoredImage(np.asarray(scene())), RECORD)
    data = path.read_bytes()
    for end in (0, 4, 20, 60, len(data) // 2, len(data) - 12, len(data) - 1):
        path.write_bytes(data[:end])
        with pytest.raises(Damaged):
            read_record(path)
    for place in (30, 100, len(data) // 2, len(data) - 20):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(Damaged, match="checksum"):
            read_record(path)
    path.write_bytes(b"no picture at all")
    with pytest.raises(Damaged, match="no PNG"):
        read_record(path)


ODD: list[dict[str, Any]] = [{"model": []}, {"inputs": 3}, {"candidate": "0"}, {"id": 7}, {"model": 1}]
ODD.append({"model": {"adapters": [{"name": "a"}]}})


@pytest.mark.parametrize("change", ODD)
def test_records_of_another_shape_are_damage(tmp_path: Path, change: dict[str, Any]) -> None:
    write_composite(tmp_path / "a.png", StoredImage(np.asarray(scene())), {**RECORD, **change})
    with pytest.raises(Damaged, match="its record is not as pics writes it: "):
        read_record(tmp_path / "a.png")


def test_pictures_of_others_are_told_apart(tmp_path: Path) -> None:
    scene().save(tmp_path / "a.png")
    with pytest.raises(Foreign):
        read_record(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("seed", 4, "seed: the folder has 3, this run 4"),
        ("settings", {"steps": 50, "order": None}, "settings.steps: the folder has 20, this run 50"),
        ("settings", {"steps": 20, "order": [1, 0]}, "settings.order: the folder has null, this run [1, 0]"),
        ("inputs", {"background": "12", "object_0": "35", "box_0": [1, 2, 3, 4]}, "inputs.object_0: the folder's"),
        ("inputs", {"background": "12", "object_0": "34", "box_0": [1, 2, 3, 5]}, "inputs.box_0: the folder's"),
        ("inputs", {"background": "12", "object_0": "34", "mask_0": "56"}, "inputs.mask_0: the folder's"),
        (
            "model",
            {"name": "models/b", "fingerprint": "f" * 16},
            "model: the folder has models/a (01234567), this run models/b (ffffffff)",
        ),
        ("id", "other", 'id: the folder has "-b'),
    ],
)
def test_what_decides_pixels_is_compared(key: str, value: object, words: str) -> None:
    assert any(words in line for line in changes(RECORD, {**RECORD, key: value}))


def test_what_does_not_decide_pixels_is_not_compared() -> None:
    other = {**RECORD, "model": {**RECORD["model"], "name": "a copy"}, "seconds": 5, "run": {"batch_size": 4}}
    assert not changes(RECORD, other)
    assert not changes(json.loads(json.dumps(other)), RECORD)


def test_the_manifest_gathers_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "composed"
    folder.mkdir()
    for name, candidate in (("b", 0), ("a", 1), ("a", 0), ("-c", 0)):
        record = {**RECORD, "id": name, "candidate": candidate}
        write_composite(folder / composed_name(name, candidate), StoredImage(np.asarray(scene())), record)
    scene().save(folder / "composed_foreign.png")
    (folder / "composed_damaged.png").write_bytes(b"")
    assert write_manifest(tmp_path, folder) == 4
    lines = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert [(line["id"], line["candidate"]) for line in lines] == [("-c", 0), ("a", 0), ("a", 1), ("b", 0)]
    (folder / composed_name("a", 1)).unlink()
    assert write_manifest(tmp_path, folder) == 3


def test_a_fingerprint_tells_weights_apart_and_ignores_the_place(tiny_model: Path, tmp_path: Path) -> None:
    before = model_fingerprint(tiny_model)
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    (copy / "README.md").write_text("notes")
    assert model_fingerprint(copy) == before
    weights = copy / "projector/diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert model_fingerprint(copy) != before
