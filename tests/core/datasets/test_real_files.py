"""Builds of real files in the datasets' own formats equal the oracle's."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import oracle
from helpers.making import build_folder
from pics_cli.core.datasets.readers.coco import CocoReader
from pics_cli.core.datasets.readers.split_files import SplitFiles
from pics_cli.core.images.masks import decode_segmentation

Run = Callable[..., subprocess.CompletedProcess[str]]

LVIS_V05: dict[str, Any] = {"source__splits__val__annotations": ["lvis_v0.5/lvis_val_100.json"]}
MMDET = {"source__splits__train__annotations": ["unsorted_obj365_sample.json"]}

TINY_YAML = """
kind: dataset
name: Tiny
raw: nowhere
out: nowhere
source:
  format: coco
  splits:
    train: {annotations: [annotations/instances_train2017.json], images: ["images/train2017/{file_name}"]}
    val: {annotations: [annotations/instances_val2017.json], images: ["images/val2017/{file_name}"]}
pairs: {min_area_ratio: 0.01}
shards: {size: 8}
"""


def by_url(root: Path) -> Any:
    """The file of an image record, from its COCO url."""
    return lambda image: root.joinpath(*image["coco_url"].split("/")[-2:])


@pytest.mark.parametrize(
    "name",
    ["lvis/COCO/lvis_v1/lvis_v1_val", "lvis/lvis_v0.5/lvis_v0.5/lvis_val_100"]
    + [f"coco/tinycoco/annotations/instances_{split}2017" for split in ("train", "val")],
)
def test_real_boxes_and_areas_stay_as_they_are(shared_data: Path, name: str) -> None:
    path = shared_data / f"{name}.json"
    reader = CocoReader(SplitFiles(path.parent, path, "train", "", ("{file_name}",)))
    given = {entry["id"]: entry for entry in json.loads(path.read_text())["annotations"]}
    objects = [instance for i in reader.item_ids(0, len(reader)) for instance in reader.scene(i).instances]
    assert len(objects) == len(given)
    for found in objects:
        x, y, w, h = given[found.annotation_id]["bbox"]
        assert (found.box, found.area) == ((x, y, x + w, y + h), given[found.annotation_id]["area"])


@pytest.mark.parametrize(("split", "kept"), [("train", 1), ("val", 10)])
def test_lvis_v1(shared_data: Path, tmp_path: Path, pics: Run, split: str, kept: int) -> None:
    root = shared_data / "lvis/COCO"
    out = tmp_path / "out"
    done = pics("build-shards", "lvis", "--raw", root, "--split", split, "--out", out, "--workers", 1)
    assert done.returncode == 0, done.stderr
    data = json.loads((root / f"lvis_v1/lvis_v1_{split}.json").read_text())
    outcome = oracle.Expected("LVIS", split).compare(oracle.coco_pictures(data, by_url(root)), out)
    assert outcome["kept"] >= kept
    assert outcome.total() == len(data["images"])


@pytest.mark.parametrize(
    ("split", "objects", "kept"), [("train", 2, 10), ("train", 3, 5), ("val", 2, 2), ("val", 3, 1)]
)
def test_tinycoco(shared_data: Path, tmp_path: Path, split: str, objects: int, kept: int) -> None:
    root = shared_data / "coco/tinycoco"
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(TINY_YAML)
    _, out = build_folder(recipe, root, tmp_path / "out", split, pairs__objects=objects)
    data = json.loads((root / f"annotations/instances_{split}2017.json").read_text())
    pictures = oracle.coco_pictures(data, lambda image: root / f"images/{split}2017" / image["file_name"])
    outcome = oracle.Expected("Tiny", split, oracle.Rule(objects, ratio=0.01)).compare(pictures, out)
    assert outcome["kept"] >= kept
    assert outcome["missing_image"] == 0


def test_tinycoco_lies_where_the_url_does_not_say(shared_data: Path, tmp_path: Path) -> None:
    # The shipped recipe goes by file name and finds the pictures, LVIS's rule (by url) would not.
    root = shared_data / "coco/tinycoco"
    manifest, out = build_folder("coco", root, tmp_path / "out")
    data = json.loads((root / "annotations/instances_train2017.json").read_text())
    assert not any(by_url(root / "images")(image).exists() for image in data["images"])
    pictures = oracle.coco_pictures(data, lambda image: root / "images/train2017" / image["file_name"])
    oracle.Expected("COCO", "train").compare(pictures, out)
    assert manifest["bad"] == {"pictures": {}, "records": {}}


@pytest.mark.parametrize("objects", [1, 2])
def test_lvis_v05_with_three_of_its_pictures(shared_data: Path, tmp_path: Path, objects: int) -> None:
    root = shared_data / "lvis/lvis_v0.5"
    manifest, out = build_folder("lvis", root, tmp_path / "out", "val", pairs__objects=objects, **LVIS_V05)
    data = json.loads((root / "lvis_v0.5/lvis_val_100.json").read_text())
    pictures = oracle.coco_pictures(data, by_url(root))
    assert sum(picture.path.exists() for picture in pictures) == 3
    outcome = oracle.Expected("LVIS", "val", oracle.Rule(objects)).compare(pictures, out)
    assert outcome["no_annotations"] == 7
    assert outcome["missing_image"] > 10
    assert outcome["kept"] >= (objects == 1)
    assert outcome.total() == 100
    # The name in the file is another release's, the url tells the folder: the message names that file.
    first = manifest["bad_pictures"][0]
    assert first["detail"].count(f"val2017/{first['item']:012d}.jpg") == 2


def test_objects365_without_masks_names_annotate(shared_data: Path, tmp_path: Path, pics: Run) -> None:
    done = pics(
        "build-shards", "objects365", "--raw", shared_data / "objects365/quoted", "--out", tmp_path / "out",
        "--set", "source.splits.train.annotations=[zhiyuan_objv2_train.one_record.json]",
    )  # fmt: skip
    assert done.returncode == 2
    assert "pics annotate" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("*.tar"))


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        (2, {"too_few_objects": 1, "no_masks": 2, "no_annotations": 1}),
        (1, {"missing_image": 1, "no_masks": 2, "no_annotations": 1}),
    ],
)
def test_mmdet_fixture(shared_data: Path, tmp_path: Path, objects: int, expected: dict[str, int]) -> None:
    # Crowd without segmentation, `ignore`, a box without width, an unknown category, pictures that do not exist.
    root = shared_data / "objects365/mmdet_fixture"
    values: dict[str, Any] = {"pairs__objects": objects, "pairs__min_area_ratio": 1e-5, **MMDET}
    manifest, out = build_folder("objects365", root, tmp_path / "out", **values)
    data = json.loads((root / "unsorted_obj365_sample.json").read_text())
    pictures = oracle.coco_pictures(data, lambda image: root / "nowhere" / image["file_name"])
    outcome = oracle.Expected("Objects365", "train", oracle.Rule(objects, ratio=1e-5)).compare(pictures, out)
    assert outcome == Counter(expected)
    assert manifest["samples"] == 0


@pytest.mark.parametrize(
    "name", ["coco/tinycoco/annotations/instances_train2017.json", "lvis/lvis_v0.5/lvis_v0.5/lvis_val_100.json"]
)
def test_every_real_segmentation(shared_data: Path, name: str) -> None:
    # Chosen or not; also as compressed run lengths, which none of the files has.
    data = json.loads((shared_data / name).read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    several = 0
    for i, entry in enumerate(data["annotations"]):
        shape, size = entry["segmentation"], sizes[entry["image_id"]]
        expected = oracle.draw(shape, *size)
        assert np.array_equal(decode_segmentation(shape, *size).full(), expected), entry["id"]
        several += isinstance(shape, list) and len(shape) > 1
        if isinstance(shape, dict) or i % 50 == 0:
            counts = shape["counts"] if isinstance(shape, dict) else oracle.mask_to_runs(expected)
            packed = {"size": list(size), "counts": oracle.pack_counts(counts)}
            assert np.array_equal(decode_segmentation(packed, *size).full(), expected), entry["id"]
    assert several > 10
