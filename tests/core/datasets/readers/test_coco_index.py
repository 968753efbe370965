"""The on-disk index of a COCO json, against json.load."""

from __future__ import annotations

import json
import logging
import os
import random
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demo_data import make_boxes, make_lvis
from pics_cli.core.datasets.readers.coco_index import open_coco_index
from pics_cli.errors import PicsError


def check(path: Path, block: int) -> None:
    """Everything the index gives equals what json.load gives."""
    data = json.loads(path.read_text())
    index = open_coco_index(path, block_bytes=block)
    images = sorted(data["images"], key=lambda image: image["id"])
    assert index.image_id.tolist() == [image["id"] for image in images]
    assert index.categories == {entry["id"]: entry["name"] for entry in data["categories"]}
    for row, image in enumerate(images):
        assert (index.width[row], index.height[row]) == (image["width"], image["height"])
        assert index.names(row) == (image.get("file_name", ""), image.get("coco_url", ""))
        own = [entry for entry in data["annotations"] if entry["image_id"] == image["id"]]
        rows = range(index.first[row], index.first[row + 1])
        assert [int(index.columns["id"][i]) for i in rows] == [entry.get("id", -1) for entry in own]
        assert [int(index.columns["category_id"][i]) for i in rows] == [entry["category_id"] for entry in own]
        for i, entry in zip(rows, own, strict=True):
            assert [float(index.columns[name][i]) for name in "xywh"] == entry["bbox"]
            assert float(index.columns["area"][i]) == entry.get("area", -1)
            assert bool(index.columns["flags"][i]) == bool(entry.get("iscrowd") or entry.get("ignore"))
            if entry.get("segmentation"):
                assert index.segmentation(i) == entry["segmentation"]
            else:
                assert index.columns["kind"][i] == 0


def plain_coco() -> dict[str, Any]:
    lengths: list[Any] = [{"size": [4, 5], "counts": [0, 20]}, {"size": [4, 5], "counts": "},{"}]
    segmentations = [[[1.5, 2, 3, 4, 5, 6]], *lengths, [], None]
    images = [{"id": i, "width": 5, "height": 4, "file_name": f'a{{"}}, {{é{i}.jpg'} for i in (9, 2, 5)]
    annotations = [
        {"id": k, "image_id": (2, 9)[k % 2], "category_id": 1, "bbox": [k, 0.5, 2, 3], "area": 4, "segmentation": shape}
        for k, shape in enumerate(segmentations)
    ]
    annotations += [{"image_id": 5, "bbox": [0, 0, 1, 1], "category_id": 2, "iscrowd": 1, "note": [{"a": [{}]}]}]
    categories = [{"id": 1, "name": "cup"}, {"id": 2, "name": "bowl"}]
    return {"info": {"x": [1, {"y": "]}"}]}, "images": images, "annotations": annotations, "categories": categories}


@pytest.mark.parametrize("block", [64, 200, 8 << 20])
@pytest.mark.parametrize("layout", [None, 2])
@pytest.mark.parametrize("order", [1, -1])
def test_index_equals_json_load(tmp_path: Path, block: int, layout: int | None, order: int) -> None:
    data = dict(list(plain_coco().items())[::order])
    (tmp_path / "a.json").write_text(json.dumps(data, indent=layout))
    check(tmp_path / "a.json", block)


@pytest.mark.parametrize("block", [1 << 12, 1 << 16, 8 << 20])
def test_index_of_generated_datasets(tmp_path: Path, block: int) -> None:
    check(make_boxes(tmp_path / f"boxes{block}.json", 60, 900), block)
    check(make_lvis(tmp_path, 3) / "lvis_v1" / "lvis_v1_train.json", block)


def test_shuffled_annotations_keep_their_order_in_each_picture(tmp_path: Path) -> None:
    path = make_boxes(tmp_path / "a.json", 20, 200)
    data = json.loads(path.read_text())
    random.Random(0).shuffle(data["annotations"])
    random.Random(1).shuffle(data["images"])
    path.write_text(json.dumps(data))
    check(path, 1 << 14)


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data["annotations"][0].update(image_id=77), "unknown_image"),
        (lambda data: data["annotations"][3].update(bbox=None), "bad_annotation_record"),
        (lambda data: data["annotations"][0].update(bbox=[1, 2, 3]), "bad_annotation_record"),
        (lambda data: data["annotations"][0].pop("image_id"), "bad_annotation_record"),
        (lambda data: data["images"].append(dict(data["images"][0])), "duplicate_image_id"),
        (lambda data: data["images"].append({"id": 100, "width": 4, "height": "high"}), "bad_image_record"),
        (lambda data: data["images"].append({"id": 100, "width": -4, "height": 4}), "bad_image_record"),
        (lambda data: data["images"].append({"id": 100, "width": 1 << 40, "height": 4}), "bad_image_record"),
        (lambda data: data["images"].append({"id": 100, "width": 1 << 17, "height": 1 << 17}), "bad_image_record"),
        (lambda data: data["images"].append({"id": 1 << 70, "width": 4, "height": 4}), "bad_image_record"),
        (lambda data: data["annotations"][0].update(category_id=1 << 70), "bad_annotation_record"),
        (lambda data: data["annotations"][0].update(bbox=[1e308, 0, 1, 1]), "bad_annotation_record"),
        (lambda data: data["categories"].append({"id": 7}), "bad_category_record"),
        (lambda data: data["images"].append({"id": 1.5, "width": 4, "height": 4}), "bad_image_record"),
        (lambda data: data["images"].append({"id": " ", "width": 4, "height": 4}), "bad_image_record"),
        (lambda data: data["annotations"][0].update(area="large"), "bad_annotation_record"),
        (lambda data: data["annotations"][0].update(iscrowd="perhaps"), "bad_annotation_record"),
        (lambda data: data["annotations"][0].update(image_id=[9]), "bad_annotation_record"),
    ],
)
def test_bad_records_are_counted_and_the_rest_stays(tmp_path: Path, change: Change, reason: str) -> None:
    data = plain_coco()
    change(data)
    (tmp_path / "a.json").write_text(json.dumps(data))
    index = open_coco_index(tmp_path / "a.json")
    assert index.bad_records.counts == {reason: 1}
    assert index.bad_records.lines[0].startswith(f"{reason}: ")
    assert index.image_id.tolist() == [2, 5, 9]
    lost = reason in ("unknown_image", "bad_annotation_record")
    assert len(index.columns["id"]) == len(plain_coco()["annotations"]) - lost


@pytest.mark.parametrize("shift", [0, -8, 10**12])
def test_ids_of_any_size_find_their_annotations(tmp_path: Path, shift: int) -> None:
    """Dense ids are looked up in a table, others by bisection; an annotation just beside an id belongs to nobody."""
    data = plain_coco()
    for image in data["images"]:
        image["id"] += shift
    for entry in data["annotations"]:
        entry["image_id"] += shift
    (tmp_path / "a.json").write_text(json.dumps(data))
    check(tmp_path / "a.json", 1 << 20)
    for other in (-1, 1, 3, 10, 10**9):
        data["annotations"].append({"image_id": shift + other, "bbox": [0, 0, 1, 1], "category_id": 1})
    (tmp_path / "a.json").write_text(json.dumps(data))
    assert open_coco_index(tmp_path / "a.json").bad_records.counts == {"unknown_image": 5}


def test_nulls_read_as_missing(tmp_path: Path) -> None:
    data = plain_coco()
    for entry in data["annotations"]:
        entry.update(area=None, iscrowd=None, id=None, ignore=None)
    (tmp_path / "a.json").write_text(json.dumps(data))
    index = open_coco_index(tmp_path / "a.json")
    assert np.all(index.columns["area"] == -1)
    assert np.all(index.columns["flags"] == 0)


def test_flags_may_be_booleans_and_category_ids_large(tmp_path: Path) -> None:
    data = plain_coco()
    data["categories"].append({"id": 1 << 40, "name": "hashed"})
    data["annotations"][0].update(iscrowd=False, category_id=1 << 40)
    data["annotations"][1].update(iscrowd=True)
    (tmp_path / "a.json").write_text(json.dumps(data))
    check(tmp_path / "a.json", 1 << 20)


@pytest.mark.parametrize("name", ["annotations.x.npy", "meta.json", "names.npy", "checksums.json"])
def test_damaged_index_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Emptied, or with one other byte: in a header that NumPy parses, or in a number that would be taken as it is."""
    monkeypatch.setenv("PICS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.json").write_text(json.dumps(plain_coco()))
    open_coco_index(tmp_path / "a.json")
    (damaged,) = (tmp_path / "cache").rglob(name)
    whole = damaged.read_bytes()
    for data in (b"", whole[:20] + b"(" + whole[21:], whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:]):
        damaged.write_bytes(data)
        check(tmp_path / "a.json", 1 << 20)
        assert damaged.read_bytes() == whole


def test_empty_arrays(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": [ ], "annotations": [], "categories": []}')
    index = open_coco_index(tmp_path / "a.json")
    assert len(index) == 0
    assert not index.has_masks()


def test_index_is_built_once_and_again_when_the_file_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="pics_cli")
    path = tmp_path / "a.json"
    path.write_text(json.dumps(plain_coco()))
    for _ in range(2):
        open_coco_index(path)
    assert caplog.messages == [f"indexing {path} (once)"]
    state = path.stat()
    path.write_text(json.dumps(plain_coco()).replace("0.5", "0.7"))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert open_coco_index(path).columns["y"].tolist().count(0.7) == 5
    assert len(caplog.messages) == 2


def test_what_a_killed_builder_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICS_CACHE", str(tmp_path / "cache"))
    dead = subprocess.Popen(["true"])
    dead.wait()
    left, ours = (
        tmp_path / f"cache/index/.building-{socket.gethostname()}-{pid}-x_y1" for pid in (dead.pid, os.getpid())
    )
    left.mkdir(parents=True)
    ours.mkdir()
    (left / "image_id.raw").write_text("half")
    (tmp_path / "a.json").write_text(json.dumps(plain_coco()))
    open_coco_index(tmp_path / "a.json")
    assert not left.exists()
    assert ours.exists()


def test_unwritable_cache_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "a.json").write_text(json.dumps(plain_coco()))
    monkeypatch.setenv("PICS_CACHE", str(tmp_path / "file"))
    with pytest.raises(PicsError, match="cannot write"):
        open_coco_index(tmp_path / "a.json")
