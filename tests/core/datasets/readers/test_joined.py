"""Several annotation files of one split: pictures, categories and bad records of all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers import oracle
from helpers.exports import panoptic_map, voc, write_panoptic
from helpers.making import annotation, build_folder, encoded, smooth, write_coco
from helpers.six_formats import PAIR, SIZE, region
from helpers.street import bdd_label, put, write_bdd
from pics_cli.core.datasets.readers import open_reader
from pics_cli.core.datasets.readers.base import DatasetSplit, Reader
from pics_cli.core.recipes.base import Override, find_recipe
from pics_cli.core.recipes.dataset import load_dataset


def reader_of(recipe: str | Path, raw: Path, **values: Any) -> Reader:
    overrides = [Override(key.replace("__", "."), value, key) for key, value in values.items()]
    return open_reader(DatasetSplit(load_dataset(find_recipe(str(recipe)), overrides), "train", raw))


def coco_parts(folder: Path, bad: tuple[int, ...]) -> Path:
    """A file a number, each with one picture of id 1 and so many records that are none."""
    recipe, data = write_coco(folder, {}, [], [])
    for number, broken in enumerate(bad):
        put(folder / f"pictures/{number}.jpg", encoded(smooth(*SIZE, seed=number)))
        data["images"] = [{"id": 1, "file_name": f"{number}.jpg", "width": SIZE[1], "height": SIZE[0]}]
        entries: list[Any] = [{"id": i + 1, **annotation(1, box)} for i, box in enumerate(PAIR)]
        data["annotations"] = entries + [{"id": i, "image_id": None} for i in range(broken)]
        put(folder / f"part{number}.json", json.dumps(data))
    return recipe


def test_bad_records_of_all_files_are_counted(tmp_path: Path) -> None:
    """Lines are kept of a thousand, counts of all."""
    recipe = coco_parts(tmp_path, (1500, 700, 3))
    reader = reader_of(recipe, tmp_path, source__splits__train__annotations=["part*.json"])
    assert reader.bad_records.counts == {"bad_annotation_record": 2203}
    assert len(reader.bad_records.lines) == 1000
    assert all(line.startswith("bad_annotation_record: part0: ") for line in reader.bad_records.lines)
    few = reader_of(recipe, tmp_path, source__splits__train__annotations=["part[12].json*"])
    assert few.bad_records.counts == {"bad_annotation_record": 703}
    assert [line.split(": ")[1] for line in few.bad_records.lines[-4:]] == ["part1", "part2", "part2", "part2"]


def test_pictures_of_all_files(tmp_path: Path) -> None:
    recipe = coco_parts(tmp_path, (0, 0))
    _, out = build_folder(recipe, tmp_path, tmp_path / "out", source__splits__train__annotations=["part*.json"])
    samples = oracle.read_tars(out)
    assert list(samples) == ["part0%2F000000000001", "part1%2F000000000001"]
    assert [sample["bg.jpg"] for sample in samples.values()] == [
        (tmp_path / f"pictures/{number}.jpg").read_bytes() for number in (0, 1)
    ]


def test_files_of_one_stem_keep_their_endings(tmp_path: Path) -> None:
    """Their samples had the same keys."""
    recipe = coco_parts(tmp_path, (0, 0))
    (tmp_path / "part0.json").rename(tmp_path / "part.json")
    (tmp_path / "part1.json").rename(tmp_path / "part.JSON")
    _, out = build_folder(recipe, tmp_path, tmp_path / "out", source__splits__train__annotations=["part.*"])
    assert list(oracle.read_tars(out)) == ["part%2EJSON%2F000000000001", "part%2Ejson%2F000000000001"]


def test_lists_of_pascal_voc(tmp_path: Path) -> None:
    """Only the first was read, silently."""
    raw = voc(tmp_path, {"a": PAIR, "b": PAIR})
    lists = raw / "VOC2012/ImageSets/Segmentation"
    put(lists / "train.txt", "a\n")
    put(lists / "more.txt", "b\n")
    values: dict[str, Any] = {"source__splits__train__annotations": ["ImageSets/Segmentation/*.txt"]}
    manifest, out = build_folder("voc", raw, tmp_path / "out", **values)
    assert (manifest["pictures"], manifest["samples"]) == (2, 2)
    assert [json.loads(sample["json"])["image_id"] for sample in oracle.read_tars(out).values()] == ["b", "a"]


def test_files_of_coco_panoptic(tmp_path: Path) -> None:
    for split, number in (("train", 1), ("extra", 1)):
        raw = write_panoptic(tmp_path, {number: panoptic_map(PAIR)}, split)
    values: dict[str, Any] = {
        "source__splits__train__annotations": ["annotations/panoptic_*2017.json"],
        "source__maps": ["annotations/panoptic_train2017/{name}"],
    }
    manifest, out = build_folder("coco_panoptic", raw, tmp_path / "out", **values)
    assert (manifest["pictures"], manifest["samples"]) == (2, 2)
    assert [name.rpartition("%2F")[2] for name in oracle.read_tars(out)] == ["000000000001"] * 2


@pytest.mark.parametrize("compat", [False, True])
def test_files_of_scalabel(tmp_path: Path, compat: bool) -> None:
    labels = [bdd_label(str(k), region(*box)) for k, box in enumerate(PAIR)]
    for name in "ab":
        raw = write_bdd(tmp_path, [{"name": f"{name}.jpg", "labels": labels}], {name: smooth(*SIZE)})
        written = next(raw.rglob("ins_seg_train.json"))
        written.rename(written.with_name(f"{name}.json"))
    pattern = written.parent.relative_to(raw).as_posix() + "/*.json"
    values: dict[str, Any] = {"source__splits__train__annotations": [pattern], "compat": compat}
    assert build_folder("bdd100k", raw, tmp_path / "out", **values)[0]["samples"] == 2
