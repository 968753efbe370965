"""The baseline for VITON-HD, Cityscapes, Mapillary Vistas and BDD100K, on the footing of plain_builder.py.

Masks of all objects are made on the full frame before any is chosen: one palette index, one RGBA canvas, one pair of
class and instance or one list of run lengths after the other. Boxes come from the coordinates of all set pixels. The
published code lists the picture folder again for every picture: left out, as are the IoUs that it throws away for
VITON-HD.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from plain_builder import Array, Found, closest_pair, read_rgb, write_sample

Corners = tuple[float, float, float, float]

CITY_VEHICLES = ("car", "truck", "bus")
VISTAS_VEHICLES = (107, 108, 109, 114)


class PlainViton:
    """The two largest parts of the parse map, whether they overlap or not."""

    def __init__(self, root: Path, split: str = "train") -> None:
        self.folder = root / split

    def find(self, item: int | str) -> Found:
        path = self.folder / "image-parse-v3" / str(item)
        return Found((self.folder / "image" / path.name).with_suffix(".jpg"), path)

    def build(self, found: Found, area_ratio: float, out: Path) -> bool:
        image = read_rgb(found.path)
        parse = np.array(Image.open(found.annotations))
        areas, masks, boxes = [], [], []
        for label in np.unique(parse):
            mask = (parse == label).astype(np.uint8)
            area = mask.sum()
            if label != 0 and area > area_ratio * parse.size:
                areas.append(area)
                masks.append(mask)
                boxes.append(set_pixels_box(mask))  # the published code goes on to IoUs, which it throws away
        if len(masks) < 2:
            return False
        first, second = np.argsort(areas)[::-1][:2]
        write_sample(found.path, image, [masks[first], masks[second]], out)
        return True


class PlainCityscapes:
    """Polygons of cars, trucks and buses, groups of them too, each drawn in full whatever hides it."""

    def __init__(self, root: Path, split: str = "train") -> None:
        self.polygons, self.images = root / "gtFine" / split, root / "leftImg8bit" / split

    def find(self, item: int | str) -> Found:
        objects = json.loads((self.polygons / str(item)).read_text())["objects"]
        name = str(item).replace("_gtFine_polygons.json", "_leftImg8bit.png")
        return Found(self.images / name, objects)

    def build(self, found: Found, area_ratio: float, out: Path) -> bool:
        image = read_rgb(found.path)
        height, width = image.shape[:2]
        masks, boxes = [], []
        for one in found.annotations:
            if one["label"].removesuffix("group") in CITY_VEHICLES:
                canvas = Image.new("RGBA", (width, height))
                ImageDraw.Draw(canvas).polygon([tuple(point) for point in one["polygon"]], fill=(255, 255, 255, 255))
                mask = (np.array(canvas)[:, :, 3] > 127).astype(np.uint8)
                box = set_pixels_box(mask)
                if mask.sum() > area_ratio * mask.size:
                    masks.append(mask)
                    boxes.append(box)
        return build_closest(found.path, image, masks, boxes, out)


class PlainVistas:
    """A full-frame mask for each class and instance number below the picture's highest, whether it occurs or not."""

    def __init__(self, root: Path, split: str = "training") -> None:
        self.folder = root / split

    def find(self, item: int | str) -> Found:
        path = self.folder / "v2.0/instances" / str(item)
        return Found((self.folder / "images" / path.name).with_suffix(".jpg"), path)

    def build(self, found: Found, area_ratio: float, out: Path) -> bool:
        image = read_rgb(found.path)
        values = np.array(Image.open(found.annotations))
        labels, instances = values // 256, values % 256
        masks, boxes = [], []
        for label in VISTAS_VEHICLES:
            for instance in range(instances.max()):
                mask = ((labels == label) & (instances == instance)).astype(np.uint8)
                box = set_pixels_box(mask)
                if mask.sum() > area_ratio * mask.size:
                    masks.append(mask)
                    boxes.append(box)
        return build_closest(found.path, image, masks, boxes, out)


class PlainBdd:
    """Every object's run lengths decoded for its area; boxes as given, whose far corner is the last pixel."""

    def __init__(self, root: Path, split: str = "train") -> None:
        self.images = root / "images/10k" / split
        data = json.loads((root / f"labels/ins_seg/rles/ins_seg_{split}.json").read_text())
        self.frames = data["frames"]

    def find(self, item: int | str) -> Found:
        frame = self.frames[item]
        return Found(self.images / frame["name"], frame["labels"])

    def build(self, found: Found, area_ratio: float, out: Path) -> bool:
        image = read_rgb(found.path)
        masks, boxes = [], []
        for label in found.annotations:
            mask = coco_mask.decode(label["rle"])
            if mask.sum() > area_ratio * mask.size:
                masks.append(mask)
                boxes.append(tuple(label["box2d"][key] for key in ("x1", "y1", "x2", "y2")))
        return build_closest(found.path, image, masks, boxes, out)


def build_closest(path: Path, image: Array, masks: Sequence[Array], boxes: Sequence[Corners], out: Path) -> bool:
    """Build the sample folder of the pair of the highest IoU; False where no two boxes overlap."""
    pair = closest_pair(boxes)
    if pair is None:
        return False
    write_sample(path, image, [masks[i] for i in pair], out)
    return True


def set_pixels_box(mask: Array) -> Corners:
    """x0, y0, x1, y1 of the first and last set pixels, zeros where none is set."""
    rows, columns = np.where(mask)
    if not len(rows):
        return 0, 0, 0, 0
    return columns.min(), rows.min(), columns.max(), rows.max()
