"""Objects365's layout with COCO's real pictures and boxes → labels → shards; and readers of boxes on real records."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers.detection import save_tiny
from helpers.making import build_folder
from pics_cli.core.datasets.labels import read_block
from pics_cli.core.datasets.readers.base import DatasetSplit
from pics_cli.core.recipes.base import Override, find_recipe
from pics_cli.core.recipes.dataset import load_dataset
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.core.segmentation.annotator import AnnotationProgress
from pics_cli.core.segmentation.blocks import AnnotationJob
from pics_cli.core.segmentation.boxes import open_boxes
from pics_cli.core.segmentation.run import annotate


def as_objects365(coco: Path, raw: Path) -> Path:
    """COCO's pictures and boxes in Objects365's folders and fields: no masks in the json."""
    data = json.loads((coco / "annotations/instances_train2017.json").read_text())
    (raw / "images/train/patch0").mkdir(parents=True)
    for image in data["images"]:
        name = image["file_name"]
        found = next(path for path in coco.glob(f"images/*/{name}"))
        shutil.copyfile(found, raw / "images/train/patch0" / name)
        image["file_name"] = f"images/v1/patch0/{name}"
    for annotation in data["annotations"]:
        annotation.pop("segmentation")
    (raw / "zhiyuan_objv2_train.json").write_text(json.dumps(data))
    return raw


def test_boxes_to_labels_to_shards(shared_data: Path, tmp_path: Path) -> None:
    raw = as_objects365(shared_data / "coco/tinycoco", tmp_path / "object365")
    recipe = load_dataset(find_recipe("objects365"), [Override("source.sam.block", 8, "--set")])
    sam = save_tiny(tmp_path / "sam")
    labels = raw / "labels/train"
    job = AnnotationJob(DatasetSplit(recipe, "train", raw), labels, sam=str(sam), device="cpu", dtype="fp32", workers=1)
    report = annotate(job, Ranks(), AnnotationProgress())
    assert report.manifest["complete"]
    assert not report.manifest["bad_pictures"]
    given = json.loads((raw / "zhiyuan_objv2_train.json").read_text())
    found = [picture for path in sorted(labels.glob("*.jsonl.gz")) for picture in read_block(path)]
    assert [picture.image_id for picture in found] == sorted(image["id"] for image in given["images"])
    ids: list[Any] = [each.id for picture in found for each in picture.objects]
    assert sorted(ids) == sorted(annotation["id"] for annotation in given["annotations"])
    crowds = {annotation["id"] for annotation in given["annotations"] if annotation["iscrowd"]}
    assert crowds == {each.id for picture in found for each in picture.objects if "crowd" in each.flags}
    manifest, _ = build_folder(
        "objects365", raw, tmp_path / "shards", pairs__contained="keep", source__sam__min_score=0.0,
        source__sam__min_agreement=0.0,
    )  # fmt: skip
    assert manifest["input"]["format"] == "sam"
    assert manifest["samples"] + sum(manifest["skipped"].values()) == len(found)


def test_frames_of_scalabel(shared_data: Path, tmp_path: Path) -> None:
    """The last corner of box2d belongs to the box; labels without one are left out."""
    source = shared_data / "bdd100k/scalabel/scalabel_ins_seg.json"
    (tmp_path / "raw").mkdir()
    shutil.copyfile(source, tmp_path / "raw/frames.json")
    override = Override("source.splits.train.annotations", ["frames.json"], "--set")
    boxes = open_boxes(load_dataset(find_recipe("bdd100k"), [override]), "train", tmp_path / "raw")
    data = json.loads(source.read_text())
    frames = data["frames"] if isinstance(data, dict) else data
    assert len(boxes) == len(frames)
    seen = 0
    for row, frame in enumerate(frames):
        listed = boxes.picture(row)
        expected = [
            (box["x1"], box["y1"], box["x2"] + 1, box["y2"] + 1)
            for label in frame.get("labels") or []
            if (box := label.get("box2d"))
        ]
        assert [each.box for each in listed.boxes] == expected
        seen += len(expected)
    assert seen or pytest.fail("no box in the file")
