"""The record in a PNG: written before the pixels, found damaged, compared, gathered."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from PIL.ImageCms import ImageCmsProfile, createProfile

from helpers.composites import SIZE, scene
from pics_cli import __version__
from pics_cli.core.images.output_formats import OutputFormat, check_format
from pics_cli.core.images.stored_image import StoredImage, decode_stored
from pics_cli.core.inference.marking import SOURCE_TYPE, creation_date
from pics_cli.core.inference.record import (
    Damaged,
    Foreign,
    changes,
    composed_name,
    creation_record,
    model_fingerprint,
    read_record,
    write_composite,
    write_manifest,
)
from pics_cli.errors import BadSample, PicsError

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


def packet_of(path: Path) -> ElementTree.Element:
    """XMP's description in a file of any kind: as every reader finds it, by its first and last bytes."""
    data = path.read_bytes()
    (packet,) = re.findall(rb"<x:xmpmeta.*?</x:xmpmeta>", data, re.DOTALL)
    return ElementTree.fromstring(packet)[0][0]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_every_format_is_marked_and_carries_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: OutputFormat, deep: bool
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    rgb = np.asarray(scene())
    picture = StoredImage(
        rgb.astype(np.uint16) * 257 if deep else rgb, ImageCmsProfile(createProfile("sRGB")).tobytes()
    )
    record = {**RECORD, "model": {**RECORD["model"], "name": 'a<&>\x1b\udcff"b'}, **creation_record(format)}
    path = tmp_path / composed_name("a", 0, format)
    if deep and format != "png":
        with pytest.raises(BadSample, match=r"16 bits for each value, which .* cannot hold: take --output-format png"):
            write_composite(path, picture, record, format)
        assert not path.exists()
        return
    write_composite(path, picture, record, format)
    description = packet_of(path)
    assert {node.tag: node.text for node in description} == {
        "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType": SOURCE_TYPE,
        "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}AISystemUsed": 'a<&>\ufffd\ufffd"b',
        "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}AISystemVersionUsed": "0123456789abcdef",
        "{http://ns.adobe.com/xap/1.0/}CreatorTool": f"pics {__version__}",
        "{http://ns.adobe.com/xap/1.0/}CreateDate": "2023-11-14T22:13:20Z",
        "{urn:x-pics:1.0/}record": json.dumps(record),
    }
    assert read_record(path) == read_record(path, whole=False) == record
    stored = decode_stored(path.read_bytes())
    assert stored.icc_profile == picture.icc_profile
    if format == "jpeg":
        assert 0 < np.abs(stored.pixels.astype(int) - rgb).max() < 12
    else:
        assert np.array_equal(stored.pixels, picture.pixels)
    if format != "png":  # whose checksums are tested below
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * 2 // 3])
        with pytest.raises(Damaged):
            read_record(path)
    # What another program leaves: the packet in a file of another kind, its property as an attribute.
    other = b"<r:RDF xmlns:r='a' xmlns:q='urn:x-pics:1.0/'><r:D q:record='{&quot;id&quot;: &quot;x&quot;}'/></r:RDF>"
    scene().save(path, "WEBP", xmp=other)
    assert read_record(path) == {"id": "x"}
    scene().save(path, "WEBP", xmp=b"<!DOCTYPE r [<!ENTITY e 'x'>]>" + other)
    with pytest.raises(Foreign):
        read_record(path)


@pytest.mark.parametrize(
    ("stored", "format", "text"),
    [
        (StoredImage(np.zeros((4, 4, 4), np.uint8)), "jpeg", "has alpha, which JPEG cannot hold: .* png or webp$"),
        (StoredImage(np.zeros((4, 4, 4), np.uint16)), "jpeg", "16 bits for each value and alpha, which .* png$"),
        (
            StoredImage(np.zeros((1, 16_384, 3), np.uint8)),
            "webp",
            "has 16384x1 pixels, which WebP cannot hold: .* png$",
        ),
        (StoredImage(np.zeros((4, 4, 3), np.uint8)), "jpeg", "its record takes 69,[0-9]{3} bytes, a JPEG holds 65,535"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(
    tmp_path: Path, stored: StoredImage, format: OutputFormat, text: str
) -> None:
    with pytest.raises(BadSample) as caught:
        write_composite(tmp_path / "a", stored, {"notes": "x" * 69_000}, format)
    assert re.search(text, caught.value.detail)
    assert not list(tmp_path.iterdir())


def test_what_says_how_colours_look_is_told_where_it_is_lost() -> None:
    def lost(*kinds: bytes) -> list[str]:
        return check_format(StoredImage(np.zeros((4, 4, 3), np.uint8), None, tuple((k, b"") for k in kinds)), "jpeg")

    assert lost(b"sRGB", b"gAMA") == lost() == []
    assert lost(b"gAMA", b"cHRM") == ["gAMA, cHRM of its PNG, which say what its colours mean, are not in the JPEG"]
    assert len(lost(b"sRGB", b"cICP")) == 1


def test_a_date_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "today")
    with pytest.raises(PicsError, match="SOURCE_DATE_EPOCH=today: expected a whole number of seconds since 1970"):
        creation_date()


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
    with pytest.raises(Damaged, match="no PNG, JPEG or WebP"):
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
        (
            "inputs",
            {"background": "12", "object_0": "35", "box_0": [1, 2, 3, 4]},
            "inputs.object_0: the folder's picture was made from another",
        ),
        ("inputs", {"background": "12", "object_0": "34", "box_0": [1, 2, 3, 5]}, "inputs.box_0: the folder's"),
        (
            "inputs",
            {"background": "12", "object_0": "34", "mask_0": "56"},
            "inputs.mask_0: the folder's picture was made without",
        ),
        ("inputs", {"background": "12", "object_0": "34"}, "inputs.box_0: the folder's picture was made with one"),
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
