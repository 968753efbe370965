"""What the research code stores of a raw dataset, faults included: plain, slow, and without a line of the package.

Written after reference/data.md, section 1. A whole picture is decoded first, IoU is a double loop, masks are full
frames. What it leaves to the numpy generator, the padding of a patch, is asked of the caller. Samples that would hold
an empty mask, or one of the whole frame, are left out: the package refuses them, by design.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

import oracle

Bools = npt.NDArray[np.bool_]
RGB = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]

CITYSCAPES_LABELS = ("car", "truck", "bus")
VISTAS_LABELS = (107, 108, 109, 114)


@dataclass(frozen=True)
class Thing:
    """One object as a builder sees it: area and box (x0, y0, x1, y1) by the dataset's own rule."""

    area: float
    box: Box
    mask: Bools


@dataclass(frozen=True)
class Chosen:
    """The two objects of one picture, in the order in which they are stored."""

    rgb: RGB
    things: tuple[Thing, Thing]

    def patch(self, k: int, padding: float) -> RGB:
        return cut_patch(self.rgb, self.things[k].mask, padding)


# --- the choice -------------------------------------------------------------------------------------------------------


def almost_contained(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> bool:
    """Meant for x, y, w, h, called with corners: D1."""
    if a[0] < b[0] - 2 or a[1] < b[1] - 2:
        return False
    return bool(a[0] + a[2] <= b[0] + b[2] + 2 and a[1] + a[3] <= b[1] + b[3] + 2)


def iou(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if across <= 0 or down <= 0:
        return 0.0
    shared = across * down
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def large(things: Sequence[Thing], rgb: RGB, ratio: float) -> list[Thing]:
    return [thing for thing in things if thing.area > ratio * (rgb.shape[0] * rgb.shape[1])]


def overlapping_pair(things: Sequence[Thing]) -> tuple[Thing, Thing] | None:
    """The pair of the highest IoU, the first of equals row by row."""
    if len(things) < 2:
        return None
    boxes = np.array([thing.box for thing in things], np.float32)
    matrix = np.zeros((len(things), len(things)), np.float32)
    for i in range(len(things)):
        for j in range(len(things)):
            if i == j:
                matrix[i, j] = -1
            elif almost_contained(boxes[i], boxes[j]) or almost_contained(boxes[j], boxes[i]):
                matrix[i, j] = 0
            else:
                matrix[i, j] = iou(boxes[i], boxes[j])
    best, pair = np.float32(0), None
    for i in range(len(things)):
        for j in range(len(things)):
            if matrix[i, j] > best:
                best, pair = matrix[i, j], (things[i], things[j])
    return pair


def largest_pair(things: Sequence[Thing]) -> tuple[Thing, Thing] | None:
    """The two largest, of equals the later one first, overlapping or not: D3."""
    if len(things) < 2:
        return None
    order = np.argsort([thing.area for thing in things], kind="stable")[::-1]
    return things[order[0]], things[order[1]]


# --- the patch --------------------------------------------------------------------------------------------------------


def cut_patch(rgb: RGB, mask: Bools, padding: float) -> RGB:
    """White outside the mask, crop short of the last row and column (D7), pad, square, 224."""
    height, width = mask.shape
    x0, y0, x1, y1 = (0, 0, width, height) if mask.sum() < 10 else last_pixel_box(mask)
    solid = mask.astype(np.uint8)[..., None]
    white = rgb * solid + 255 * (1 - solid)
    crop = np.concatenate([white, 255 * solid], axis=2)[y0:y1, x0:x1]
    crop = widen(crop, int(crop.shape[0] * padding), int(crop.shape[1] * padding))
    crop = widen(crop, max(crop.shape[:2]), max(crop.shape[:2]))
    return cv2.resize(crop, (224, 224), interpolation=cv2.INTER_LINEAR)[..., :3]


def widen(image: RGB, height: int, width: int) -> RGB:
    """White on all sides, the smaller half above and on the left."""
    canvas = np.full((height, width, image.shape[2]), 255, np.uint8)
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def last_pixel_box(mask: Bools) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the first and the last set pixels, both included."""
    rows, columns = np.where(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


# --- the datasets: raw folder to what is stored, by key ---------------------------------------------------------------

Found = dict[str, Chosen]


def read_lvis(raw: Path, ratio: float) -> Found:
    data = json.loads((raw / "lvis_v1/lvis_v1_train.json").read_text())
    found: Found = {}
    for image in sorted(data["images"], key=lambda image: image["id"]):
        path = raw / f"train2017/{image['id']:012d}.jpg"
        if not path.exists():
            path = raw / f"val2017/{image['id']:012d}.jpg"
        entries = [entry for entry in data["annotations"] if entry["image_id"] == image["id"]]
        things = [coco_thing(entry, image["height"], image["width"]) for entry in entries]
        add(found, path, things, ratio)
    return found


def read_objects365(raw: Path, ratio: float) -> Found:
    found: Found = {}
    for label in sorted((raw / "labels/train").rglob("*.json")):
        path = raw / "images/train" / label.parent.name / f"{label.name.removesuffix('.json')}.jpg"
        with Image.open(path) as image:
            width, height = image.size
        entries = json.loads(label.read_text())["annotations"]
        add(found, path, [coco_thing(entry, height, width) for entry in entries], ratio)
    return found


def coco_thing(entry: Mapping[str, Any], height: int, width: int) -> Thing:
    """Area and box as annotated, whatever else the annotation says (iscrowd, ignore, category)."""
    x, y, w, h = entry["bbox"]
    shape = entry["segmentation"]
    if isinstance(shape, dict):
        mask = oracle.draw(shape, height, width)
    else:
        mask = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(shape, height, width))) == 1
    return Thing(entry["area"], (x, y, x + w, y + h), mask)


def read_bdd100k(raw: Path, ratio: float) -> Found:
    found: Found = {}
    for frame in json.loads((raw / "labels/ins_seg/rles/ins_seg_train.json").read_text())["frames"]:
        things = []
        for label in frame["labels"]:
            mask = oracle.draw(label["rle"], *label["rle"]["size"])
            box = label["box2d"]
            things.append(Thing(int(mask.sum()), (box["x1"], box["y1"], box["x2"], box["y2"]), mask))
        add(found, raw / "images/10k/train" / frame["name"], things, ratio)
    return found


def read_cityscapes(raw: Path, ratio: float) -> Found:
    found: Found = {}
    for label in sorted((raw / "gtFine/train").rglob("*_gtFine_polygons.json")):
        stem = label.name.removesuffix("_gtFine_polygons.json")
        record = json.loads(label.read_text())
        masks = []
        for entry in record["objects"]:
            if entry["label"].removesuffix("group") in CITYSCAPES_LABELS:
                canvas = Image.new("RGBA", (record["imgWidth"], record["imgHeight"]), (0, 0, 0, 0))
                ImageDraw.Draw(canvas).polygon([tuple(point) for point in entry["polygon"]], fill=(255,) * 4)
                masks.append(np.asarray(canvas)[..., 3] > 0)
        path = raw / "leftImg8bit/train" / label.parent.name / f"{stem}_leftImg8bit.png"
        add(found, path, things_of(masks), ratio)
    return found


def read_mapillary_vistas(raw: Path, ratio: float) -> Found:
    found: Found = {}
    for map_path in sorted((raw / "training/v2.0/instances").glob("*.png")):
        values = np.asarray(Image.open(map_path)).astype(int)
        labels, instances = values // 256, values % 256
        masks = [(labels == label) & (instances == k) for label in VISTAS_LABELS for k in numbers_of(instances)]
        add(found, raw / "training/images" / f"{map_path.name.removesuffix('.png')}.jpg", things_of(masks), ratio)
    return found


def numbers_of(instances: npt.NDArray[Any]) -> range:
    """The numbers looked for, of whatever classes: without the highest (D5)."""
    return range(int(instances.max()))


def read_viton_hd(raw: Path, ratio: float) -> Found:
    found: Found = {}
    for map_path in sorted((raw / "train/image-parse-v3").glob("*.png")):
        ids = np.asarray(Image.open(map_path))
        masks = [ids == k for k in range(1, 256)]
        path = raw / "train/image" / f"{map_path.name.removesuffix('.png')}.jpg"
        add(found, path, things_of(masks), ratio, largest_pair)
    return found


def things_of(masks: Sequence[Bools]) -> list[Thing]:
    """Objects known by their pixels alone."""
    return [Thing(int(mask.sum()), last_pixel_box(mask), mask) for mask in masks if mask.any()]


def add(
    found: Found,
    path: Path,
    things: Sequence[Thing],
    ratio: float,
    choose: Callable[[Sequence[Thing]], tuple[Thing, Thing] | None] = overlapping_pair,
) -> None:
    rgb = np.asarray(cv2.imread(str(path)))[..., ::-1]
    pair = choose(large(things, rgb, ratio))
    if pair and all(thing.mask.any() and not thing.mask.all() for thing in pair):
        key = path.name.rpartition(".")[0]
        assert key not in found
        found[key] = Chosen(np.ascontiguousarray(rgb), pair)


READERS: dict[str, Callable[[Path, float], Found]] = {
    "lvis": read_lvis, "objects365": read_objects365, "bdd100k": read_bdd100k, "cityscapes": read_cityscapes,
    "mapillary_vistas": read_mapillary_vistas, "viton_hd": read_viton_hd,
}  # fmt: skip
"""By the name of the recipe."""


def compare(found: Found, out: Path) -> None:
    """Assert that the shards in `out` hold exactly what was found: keys, order of the objects, masks and patches."""
    samples = oracle.read_tars(out)
    assert sorted(samples) == sorted(map(oracle.escape, found))
    for key, chosen in found.items():
        members = samples[oracle.escape(key)]
        assert list(members) == ["bg.jpg", "obj0.png", "mask0.png", "obj1.png", "mask1.png", "json"], key
        objects = json.loads(members["json"])["objects"]
        for k, thing in enumerate(chosen.things):
            assert np.array_equal(oracle.read_mask(members[f"mask{k}.png"]), thing.mask), f"{key}: mask{k}"
            padding = objects[k]["patch"]["padding"]
            assert padding in (1.1, 1.2, 1.3, 1.4)
            patch = np.asarray(Image.open(io.BytesIO(members[f"obj{k}.png"])))
            assert np.array_equal(patch, chosen.patch(k, padding)), f"{key}: obj{k}"
