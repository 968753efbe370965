"""Annotations as other programs write them, and annotations that contradict themselves, built into shards."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import oracle
from helpers.making import annotation, build_folder, encoded, rectangle, smooth, write_coco
from pics_cli.core.datasets.inspect import inspect_dataset
from pics_cli.core.datasets.readers.coco import CocoReader
from pics_cli.core.datasets.readers.coco_index import open_coco_index
from pics_cli.core.datasets.readers.split_files import SplitFiles
from pics_cli.core.images.masks import decode_segmentation, segmentation_area
from pics_cli.errors import BadSample, PicsError

LEFT, RIGHT = (10, 10, 60, 50), (40, 20, 90, 60)
Change = Callable[[dict[str, Any]], object]


def raw(folder: Path, *extra: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    shapes = [annotation(1, box, [rectangle(*box)]) for box in (LEFT, RIGHT)]
    image = {"id": 1, "file_name": "a.jpg", "width": 100, "height": 70}
    return write_coco(folder, {"a.jpg": encoded(smooth(70, 100))}, [image], [*shapes, *extra])


def each(data: dict[str, Any], **values: Any) -> list[None]:
    return [entry.update(values) for entry in data["annotations"]]


FORMS: dict[str, Change] = {
    "text ids": lambda data: (data["images"][0].update(id="1"), each(data, image_id="1")),
    "uuids": lambda data: (data["images"][0].update(id="a-b"), each(data, image_id="a-b")),
    "fractions": lambda data: (data["images"][0].update(id=1.0, width=100.0), each(data, image_id=1.0)),
    "annotation ids": lambda data: [entry.update(id=f"x{entry['id']}") for entry in data["annotations"]],
    "crowd words": lambda data: each(data, iscrowd="false"),
    "no boxes": lambda data: [entry.pop("bbox") for entry in data["annotations"]],
    "no sizes": lambda data: [data["images"][0].pop(side) for side in ("width", "height")],
    "no areas": lambda data: each(data, area=float("nan")),
    "zero areas": lambda data: each(data, area=0),
    "flat": lambda data: [entry.update(segmentation=entry["segmentation"][0]) for entry in data["annotations"]],
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_that_leave_no_doubt_build(tmp_path: Path, form: str) -> None:
    recipe, data = raw(tmp_path)
    FORMS[form](data)
    (tmp_path / "labels.json").write_text(json.dumps(data))
    assert build_folder(recipe, tmp_path, tmp_path / "out")[0]["samples"] == 1


@pytest.mark.parametrize(
    "encode",
    [lambda t: gzip.compress(t.encode()), lambda t: gzip.compress(t.encode("utf-16"))]
    + [
        partial(str.encode, encoding=f"utf-{form}")
        for form in ("8-sig", "16", "16-le", "16-be", "32", "32-le", "32-be")
    ],
)
def test_encodings_build(tmp_path: Path, encode: Callable[[str], bytes]) -> None:
    recipe, data = raw(tmp_path)
    (tmp_path / "labels.json").write_bytes(encode(json.dumps(data)))
    assert build_folder(recipe, tmp_path, tmp_path / "out")[0]["samples"] == 1


def test_what_cannot_be_read_is_told_with_the_first(tmp_path: Path) -> None:
    _, data = raw(tmp_path)
    each(data, area="large")
    (tmp_path / "labels.json").write_text(json.dumps(data))
    with pytest.raises(PicsError, match=r"none of its annotations .* area is \"large\", expected a number"):
        open_coco_index(tmp_path / "labels.json")
    (tmp_path / "labels.json").write_text("{}\n{}")
    with pytest.raises(PicsError, match="JSON lines"):
        open_coco_index(tmp_path / "labels.json")


def test_a_quote_too_many_costs_one_record(tmp_path: Path) -> None:
    _, data = raw(tmp_path)
    data["images"] += [{"id": i, "file_name": f"{i}.jpg", "width": 9, "height": 9} for i in range(2, 900)]
    (tmp_path / "labels.json").write_text(json.dumps(data).replace('"500.jpg"', '"500".jpg"'))
    index = open_coco_index(tmp_path / "labels.json")
    assert index.bad_records.counts == {"bad_image_record": 1}
    assert len(index) == 898


@pytest.mark.parametrize(("keep", "outcome"), [("drop", {"box_mask_disagree": 1}), ("mask", {}), ("keep", {})])
def test_a_box_that_is_not_its_masks(tmp_path: Path, keep: str, outcome: dict[str, int]) -> None:
    recipe, data = raw(tmp_path)
    data["annotations"][0]["bbox"] = [70, 30, 25, 25]
    (tmp_path / "labels.json").write_text(json.dumps(data))
    manifest, _ = build_folder(recipe, tmp_path, tmp_path / "out", pairs__box_mask_disagree=keep)
    assert manifest["skipped"] == outcome
    assert manifest["noted"] == ({} if keep == "keep" else {"box_mask_disagree": 1})


def boxes(data: dict[str, Any], across: float, down: float) -> list[None]:
    """Boxes in another unit."""
    units = (across, down, across, down)
    entries = data["annotations"]
    return [entry.update(bbox=[a * b for a, b in zip(entry["bbox"], units, strict=True)]) for entry in entries]


SCALES: dict[str, Change] = {
    "areas as shares": lambda data: each(data, area=2000 / 7000),
    "areas of a picture a tenth as large": lambda data: each(data, area=20),
    "boxes as shares": lambda data: boxes(data, 1 / 100, 1 / 70),
    "boxes in percent of a huge picture": lambda data: boxes(data, 1 / 40, 1 / 40),
    "boxes and areas as shares": lambda data: (boxes(data, 1 / 100, 1 / 70), each(data, area=2000 / 7000)),
    "boxes as shares and no areas": lambda data: (boxes(data, 1 / 100, 1 / 70), each(data, area=None)),
    "boxes of the whole picture": lambda data: each(data, bbox=[0, 0, 100, 70]),
    "boxes of nearly the whole picture": lambda data: each(data, bbox=[1, 1, 97.5, 68]),
}


@pytest.mark.parametrize("keep", ["drop", "mask"])
@pytest.mark.parametrize("form", SCALES)
def test_boxes_and_areas_of_another_scale_are_the_masks(tmp_path: Path, form: str, keep: str) -> None:
    """They let no object be chosen, so that no mask would ever contradict them."""
    recipe, data = raw(tmp_path)
    SCALES[form](data)
    (tmp_path / "labels.json").write_text(json.dumps(data))
    manifest, out = build_folder(recipe, tmp_path, tmp_path / "out", pairs__box_mask_disagree=keep)
    assert (manifest["samples"], manifest["skipped"], manifest["noted"]) == (1, {}, {"measured_by_mask": 2})
    (sample,) = oracle.read_tars(out).values()
    found = [(entry["annotated_box"], entry["area"]) for entry in json.loads(sample["json"])["objects"]]
    assert found == [(list(map(float, box)), 2000) for box in (LEFT, RIGHT)]


@pytest.mark.parametrize(
    ("values", "reason"), [({"pairs__box_mask_disagree": "keep"}, "only_contained"), ({"compat": True}, "no_overlap")]
)
def test_boxes_stay_where_they_are_to_be_taken_as_they_are(tmp_path: Path, values: dict[str, Any], reason: str) -> None:
    recipe, data = raw(tmp_path)
    each(data, bbox=[0, 0, 100, 70])
    (tmp_path / "labels.json").write_text(json.dumps(data))
    manifest, _ = build_folder(recipe, tmp_path, tmp_path / "out", **values)
    assert (manifest["skipped"], manifest["noted"]) == ({reason: 1}, {})


def test_inspect_and_the_choice_hold_the_same_of_a_box_against_its_mask(tmp_path: Path) -> None:
    """What lies outside the picture is no disagreement."""
    recipe, data = raw(tmp_path)
    data["annotations"][0].update(bbox=[-80, 10, 140, 40], segmentation=[rectangle(0, 10, 60, 50)])
    (tmp_path / "labels.json").write_text(json.dumps(data))
    reader = CocoReader(SplitFiles(tmp_path, tmp_path / "labels.json", "train", "", ("{file_name}",)), trusting=True)
    assert inspect_dataset(reader).agreements == [1.0, 1.0]
    assert build_folder(recipe, tmp_path, tmp_path / "out")[0]["noted"] == {}


def test_a_thin_object_keeps_its_box_and_area(tmp_path: Path) -> None:
    """It is less than a twentieth of its box, and that is right."""
    rod = [[0, 0, 2, 0, 100, 68, 100, 70, 98, 70, 0, 2]]
    recipe, _ = raw(tmp_path, annotation(1, (0, 0, 100, 70), rod, area=240.5))
    reader = CocoReader(SplitFiles(tmp_path, tmp_path / "labels.json", "train", "", ("{file_name}",)))
    scene = reader.scene(1)
    assert [(i.box, i.area) for i in scene.instances][-1] == ((0, 0, 100, 70), 240.5)
    assert scene.notes == {}
    assert build_folder(recipe, tmp_path, tmp_path / "out")[0]["noted"] == {}


def test_one_object_twice_and_one_smaller_than_said_are_no_pair(tmp_path: Path) -> None:
    twice = annotation(1, (13, 10, 63, 50), [rectangle(13, 10, 63, 50)])
    small = annotation(1, (20, 10, 70, 50), [[20, 10, 70, 10, 70, 11, 21, 11, 21, 49, 70, 49, 70, 50, 20, 50]])
    recipe, _ = raw(tmp_path, twice, small)
    manifest, _ = build_folder(recipe, tmp_path, tmp_path / "out")
    assert manifest["samples"] == 1
    assert manifest["noted"]["duplicate_object"] >= 1


def test_outlines_longer_than_the_picture_has_pixels_are_refused_at_once() -> None:
    zigzag = [value for i in range(50_000) for value in ((i % 2) * 6000 - 2000, (i * 7) % 6000 - 2000)]
    with pytest.raises(BadSample, match="outlines of"):
        decode_segmentation([zigzag], 480, 640)
    assert segmentation_area([zigzag], 480, 640) == 0


def test_forms_of_segmentations_give_the_same_pixels() -> None:
    flat = rectangle(5, 6, 20, 30)
    points = [flat[i : i + 2] for i in range(0, len(flat), 2)]
    expected = decode_segmentation([flat], 40, 50)
    for form in (flat, points, [points], [[flat]], [expected.rle()]):
        assert np.array_equal(decode_segmentation(form, 40, 50).full(), expected.full())
